package ingest

import (
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"imgcluster/cluster/image"
)

// announce has a node name those that an upload is to be sent to.
func (f *fleet) announce(at image.NodeID, req image.Request, out ...image.NodeID) []image.NodeID {
	f.t.Helper()
	nodes, err := f.nodes[at].Announce(req, out)
	if err != nil {
		f.t.Fatal(err)
	}
	return nodes
}

// announced sends an upload to the nodes that its announcement has named.
func (f *fleet) announced(req image.Request, body []byte, to ...image.NodeID) []answer {
	req.Announced = true
	return f.broadcastTo(req, body, to...)
}

// beginAnnounced sends an upload to its two nodes, and returns what gives the answers.
func (f *fleet) beginAnnounced(req image.Request, body []byte) <-chan []answer {
	done := make(chan []answer)
	go func() { done <- f.announced(req, body, 1, 2) }()
	return done
}

// TestAnnounced: whichever node is asked and leads, an upload goes to two nodes alone, of which the first
// becomes its owner.
func TestAnnounced(t *testing.T) {
	for leader := image.NodeID(1); leader <= 3; leader++ {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t, nil)
			f.lead(leader)
			body := randomBytes(1 << 20)
			for i := range 9 {
				req := request(fmt.Sprint(i))
				req.Size = int64(len(body))
				nodes := f.announce(image.NodeID(1+i%3), req)
				if again := f.announce(image.NodeID(1+i%3), req); !slices.Equal(again, nodes) || len(nodes) != 2 {
					t.Fatalf("announced to %v, then to %v", nodes, again)
				}
				rec := f.expectRecord(f.announced(req, body, nodes...))
				if !slices.Equal(rec.Replicas(), nodes) || rec.Owner != nodes[0] || !f.expectOwned(rec).Announced {
					t.Errorf("announced to %v, stored as %+v", nodes, rec)
				}
				f.expectStored(rec, body)
			}
			rec := f.expectRecord(f.announced(f.named(body, 1, 2), body, 3, 2)) // another node has said so
			if !slices.Equal(rec.Replicas(), []image.NodeID{3, 2}) || rec.Owner != 3 {
				t.Errorf("announced to 3 and 2, stored as %+v", rec)
			}
			f.expectEntries(slices.Repeat([]string{"commit"}, 10)...)
			f.expectNothingLeft()
		})
	}
}

// TestAnnouncedNodeDies is TestNodeDiesBeforeStored of an announced upload: the third node gets the bytes
// from the one that is left, not from the client.
func TestAnnouncedNodeDies(t *testing.T) { nodeDiesBeforeStored(t, (*fleet).beginAnnounced) }

// TestAnnouncedSlowDisk is TestSlowDiskLosesItsPart of an announced upload.
func TestAnnouncedSlowDisk(t *testing.T) {
	slowDiskLosesItsPart(t, func(f *fleet, req image.Request, body []byte) []answer {
		return f.announced(req, body, 1, 2)
	})
}

// slowBody comes in eight pieces, one every two seconds.
type slowBody struct{ left []byte }

func (b *slowBody) Read(p []byte) (int, error) {
	time.Sleep(2 * time.Second) // of the bubble's clock
	n := copy(p[:min(len(p), 1<<17)], b.left)
	if b.left = b.left[n:]; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// TestAnnouncedSlowClient: the node that takes over waits for the one that sends it the bytes, for as long as
// these come in there.
func TestAnnouncedSlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, nil)
		f.lead(3)
		body := randomBytes(1 << 20)
		req := f.named(body, 1, 2)
		req.Announced = true
		done := make(chan []answer)
		go func() {
			done <- f.sendAll(req, func(image.NodeID) io.Reader { return &slowBody{left: body} }, 1, 2)
		}()
		synctest.Wait()
		f.kill(1)
		rec := f.expectRecord(<-done, 1)
		if !slices.Equal(rec.Replicas(), []image.NodeID{2, 3}) {
			t.Errorf("stored as %+v", rec)
		}
		f.expectStored(rec, body)
		f.expectNothingLeft()
	})
}

// TestAnnouncedAgain: the client announces an upload again, without the nodes that it does not reach.
func TestAnnouncedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, nil)
		body := randomBytes(1000)
		req := request("again")
		req.Size = int64(len(body))
		first := f.announce(1, req)
		second := f.announce(1, req, first[0])
		if slices.Contains(second, first[0]) || len(second) != 2 {
			t.Fatalf("announced to %v, then without %d to %v", first, first[0], second)
		}
		rec := f.expectRecord(f.announced(req, body, second...))
		if third := f.announce(2, req); !slices.Equal(third, rec.Replicas()) {
			t.Errorf("what is stored as %+v is announced to %v", rec, third)
		}
		other := req
		other.Name = "other"
		if _, err := f.nodes[1].Announce(other, nil); image.KindOf(err) != image.KindConflict {
			t.Errorf("the ID for another name: %v", err)
		}
		_, err := f.nodes[1].Announce(request("nobody"), []image.NodeID{1, 2})
		if image.KindOf(err) != image.KindNoQuorum {
			t.Errorf("without two of three nodes: %v", err)
		}
		f.expectNothingLeft()
	})
}

// TestAnnouncementsAreBounded: what is announced and never sent takes up only so much, and for so long.
func TestAnnouncementsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, nil)
		for range flyingMax {
			f.announce(1, request("a.png"))
		}
		if _, err := f.nodes[1].Announce(request("a.png"), nil); image.KindOf(err) != image.KindOverload {
			t.Errorf("one more: %v", err)
		}
		time.Sleep(2*f.nodes[1].UploadTimeout + time.Second)
		f.announce(1, request("a.png"))
		f.nodes[1].Drain(t.Context())
		if _, err := f.nodes[1].Announce(request("a.png"), nil); image.KindOf(err) != image.KindNoQuorum {
			t.Errorf("on a node that shuts down: %v", err)
		}
	})
}
