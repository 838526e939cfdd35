package ingest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

func TestBroadcastStoresOnOwnerAndReplica(t *testing.T) {
	for _, size := range []int{1, ChunkBytes - 1, ChunkBytes, ChunkBytes + 1, 3*ChunkBytes + 7, 5 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			f := newFleet(t, nil)
			body := randomBytes(size)
			rec := f.expectRecord(f.broadcast(request("a.png"), body, nil))
			if len(rec.Copies) != 2 || rec.Owner != rec.Copies[0].Node {
				t.Fatalf("record %+v", rec)
			}
			f.expectStored(rec, body)
			if o := f.expectOwned(rec); o.Relayed || o.From != 0 || o.Took == 0 {
				t.Errorf("Owned of %+v", o)
			}
			f.expectEntries("commit")
			f.expectNothingLeft()
		})
	}
}

// TestRelayAtAnyNode sends images to each node alone: they are stored, byte for byte, wherever they belong.
func TestRelayAtAnyNode(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(3 << 20)
	var entries []string
	for id := range f.nodes {
		for i := range 4 { // so that each node is owner, replica and outsider
			rec, err := f.relay(id, request(fmt.Sprintf("relay-%d-%d", id, i)), body)
			if err != nil {
				t.Fatalf("node %d: %v", id, err)
			}
			if len(rec.Copies) != 2 {
				t.Fatalf("record %+v", rec)
			}
			f.expectStored(rec, body)
			if o := f.expectOwned(rec); !o.Relayed || o.From != 0 || o.Took == 0 {
				t.Errorf("Owned of %+v", o)
			}
			entries = append(entries, "commit")
		}
	}
	f.expectEntries(entries...)
	f.expectNothingLeft()
}

func TestWrongDigestLeavesNothing(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1 << 20)
	req := request("a.png")
	req.Digest = &image.Digest{1}
	f.expectKind(f.broadcast(req, body, together(body, 1, 2, 3)), image.KindDigest)
	f.expectNothing("a.png")
	f.expectEntries() // no copy was reported
}

func TestSameIDAgain(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1 << 20)
	req := request("a.png")
	first := f.expectRecord(f.broadcast(req, body, nil))
	again := f.expectRecord(f.broadcast(req, body, nil))
	if again.Version != first.Version {
		t.Errorf("the repeated upload became version %d after %d", again.Version, first.Version)
	}
	other := slices.Clone(body)
	other[0]++
	for _, b := range [][]byte{other, body[1:]} {
		f.expectKind(f.broadcast(req, b, nil), image.KindConflict)
	}
	f.expectStored(first, body)
}

// TestIDOfAnotherName: a node gets an upload under an ID that another name has, and learns that only then.
func TestIDOfAnotherName(t *testing.T) { synctest.Test(t, idOfAnotherName) }

func idOfAnotherName(t *testing.T) {
	f := newFleet(t, nil)
	first, body := request("first.png"), randomBytes(5000)
	f.log.fallBehind(3)
	f.propose(catalog.Command{Commit: &catalog.Commit{
		ID: first.ID, User: first.User, Name: first.Name, Bytes: int64(len(body)), Wanted: 1,
		Copies:  []catalog.Reported{{Copy: image.Copy{Node: 1, Attempt: image.NewAttempt()}}},
		Created: time.Unix(1, 0),
	}})
	second := first
	second.Name, second.Size = "second.png", int64(len(body))
	send := func() <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := f.nodes[3].Receive(t.Context(), second, bytes.NewReader(body))
			done <- err
		}()
		return done
	}
	done := send() // the leader says so
	if err := <-done; image.KindOf(err) != image.KindConflict {
		t.Errorf("the second name: %v, want %s", err, image.KindConflict)
	}
	f.expectUploads(3, 0)
	f.lose(func(image.NodeID, image.NodeID, Message) bool { return true })
	done = send() // the log does
	f.expectUploads(3, 1)
	f.log.catchUp(3)
	if err := <-done; image.KindOf(err) != image.KindConflict {
		t.Errorf("the second name: %v, want %s", err, image.KindConflict)
	}
	f.expectNothingLeft()
}

func TestDifferentBytesToTheNodes(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1 << 20)
	other := slices.Clone(body)
	other[len(other)-1]++
	third := slices.Clone(body)
	third[1]++
	answers := f.broadcast(request("a.png"), body,
		map[image.NodeID]io.Reader{2: bytes.NewReader(other), 3: bytes.NewReader(third)})
	f.expectKind(answers, image.KindConflict)
	f.expectNothing("a.png")
	f.expectEntries("end")
	f.expectNothingLeft()
}

func TestIfAbsent(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1 << 20)
	first := f.expectRecord(f.broadcast(request("a.png"), body, nil))
	req := request("a.png")
	req.If.NoneMatch = image.Tags{image.AnyTag}
	f.expectKind(f.broadcast(req, body[1:], nil), image.KindExists)
	f.expectKind(f.broadcast(req, body[1:], nil), image.KindExists) // the same ID has the same answer
	f.expectStored(first, body)
	for _, v := range f.vaults {
		eventually(t, "the refused upload's files to go", func() bool {
			files, _ := v.Of(testShard, req.ID)
			return len(files) == 0
		})
	}
	f.expectEntries("commit", "commit")
	f.expectNothingLeft()
}

func TestRefusedBeforeAnything(t *testing.T) {
	f := newFleet(t, nil)
	for _, c := range []struct {
		req  image.Request
		want image.Kind
	}{
		{image.Request{ID: image.NewID(), User: "alice", Name: "a", Size: 0}, image.KindInvalid},
		{
			image.Request{
				ID: image.NewID(), User: "alice", Name: "a", Size: 1, Broadcast: []image.NodeID{1},
			}, image.KindMisplaced,
		},
	} {
		_, err := f.nodes[1].Receive(t.Context(), c.req, bytes.NewReader([]byte{1}))
		if image.KindOf(err) != c.want {
			t.Errorf("%+v: %v, want %s", c.req, err, c.want)
		}
	}
	f.expectEntries()
}

func TestTooManyUploads(t *testing.T) {
	f := newFleet(t, func(o *Options) { o.UploadsMax = 1 })
	open := make(chan struct{})
	body := randomBytes(1 << 20)
	first := make(chan error)
	go func() {
		req := request("a.png")
		req.Size = int64(len(body))
		_, err := f.nodes[1].Receive(t.Context(), req, gated(body, 1000, open))
		first <- err
	}()
	f.expectUploads(1, 1)
	if _, err := f.relay(1, request("b.png"), body[:10]); image.KindOf(err) != image.KindOverload {
		t.Errorf("%v, want overload", err)
	}
	close(open)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

// TestFailedAttemptsCount sends the same upload again and again while its failed attempts are being cleared
// away, which a slow disk delays: they have their parts of the arena still, and count against the limit.
// Where nothing delays it, they make room at once.
func TestFailedAttemptsCount(t *testing.T) { synctest.Test(t, failedAttemptsCount) }

func failedAttemptsCount(t *testing.T) {
	f := newFleet(t, func(o *Options) {
		o.UploadsMax = 2
		o.StagingBytes = 2 * windowChunks * ChunkBytes
	})
	body := randomBytes(4 << 20)
	req := f.named(body, 2, 3)
	req.Broadcast = []image.NodeID{2, 3}
	send := func(n int) map[image.Kind]int {
		kinds := map[image.Kind]int{}
		for range n {
			cut := io.MultiReader(afterReader{time.Millisecond}, cutAfter(body, 1000))
			_, err := f.nodes[2].Receive(t.Context(), req, cut)
			kinds[image.KindOf(err)]++
		}
		return kinds
	}
	if kinds := send(6); kinds[image.KindIncomplete] != 6 {
		t.Errorf("answers %v, want incomplete-body", kinds)
	}
	f.expectNothing("a.png")
	open := make(chan struct{})
	f.vaults[2].open = open
	req.ID = image.NewID()
	kinds := send(6)
	if kinds[image.KindIncomplete] < 2 || kinds[image.KindOverload] == 0 || len(kinds) != 2 {
		t.Errorf("answers %v, want the limit's number of incomplete-body and then overload", kinds)
	}
	close(open)
	f.expectNothing("a.png")
	eventually(t, "room for another upload", func() bool {
		_, err := f.relay(2, request("b.png"), body)
		return err == nil
	})
}

// TestNoQuorumIsAnswered: while no entry gets into the log, an upload is not decided. Once there is a quorum
// again, its client gets the outcome by sending it again.
func TestNoQuorumIsAnswered(t *testing.T) { synctest.Test(t, noQuorumIsAnswered) }

func noQuorumIsAnswered(t *testing.T) {
	f := newFleet(t, nil)
	f.log.cutOff(true)
	req, body := request("a.png"), randomBytes(1000)
	f.expectKind(f.broadcast(req, body, nil), image.KindNoQuorum)
	f.log.cutOff(false)
	for id := range f.nodes {
		f.expectUploads(id, 0)
	}
	f.expectStored(f.expectRecord(f.broadcast(req, body, nil)), body)
	f.expectNothingLeft()
}

func TestDeletedFilesGo(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1000)
	f.expectRecord(f.broadcast(request("a.png"), body, nil))
	f.propose(catalog.Command{Delete: &catalog.Delete{User: "alice", Name: "a.png"}})
	for id := range f.vaults {
		f.expectNoFile(id)
	}
}

// TestDrain lets an upload end that a node has begun. The node takes no other, and need not.
func TestDrain(t *testing.T) { synctest.Test(t, drain) }

func drain(t *testing.T) {
	f := newFleet(t, nil)
	s := f.nodes[1]
	body := randomBytes(1 << 20)
	open := make(chan struct{})
	begun := make(chan []answer)
	go func() {
		late := map[image.NodeID]io.Reader{1: gated(body, 1000, open)}
		begun <- f.broadcast(f.named(body, 1, 2), body, late)
	}()
	synctest.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Drain(ctx)
	f.mu.Lock()
	f.drains = []image.NodeID{1}
	f.mu.Unlock()
	began := time.Now()
	late := f.broadcast(request("late.png"), body, nil)
	rec := f.expectRecord(late, 1)
	f.expectStored(rec, body)
	if took := time.Since(began); took > 2*s.ReportTimeout {
		t.Errorf("an upload that the node did not take was stored after %v", took)
	}
	refused := slices.DeleteFunc(late, func(a answer) bool { return a.node != 1 })
	f.expectKind(refused, image.KindNoQuorum)
	close(open)
	if rec := f.expectRecord(<-begun); !slices.Contains(rec.Replicas(), 1) {
		t.Errorf("the upload that was begun has the record %+v", rec)
	}
	s.Drain(t.Context())
	if n, _ := s.Stats(); n != 0 {
		t.Errorf("%d uploads after draining", n)
	}
}

// TestEndedRequestIsNoSuccess has the client go before the log has decided. The upload is still in progress
// when the fleet is closed, which ends it.
func TestEndedRequestIsNoSuccess(t *testing.T) {
	f := newFleet(t, nil)
	open := make(chan struct{})
	defer close(open)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	defer f.log.holdBack("commit")()
	result := make(chan error)
	go func() {
		req := request("a.png")
		req.Size = 1000
		_, err := f.nodes[1].Receive(ctx, req, bytes.NewReader(randomBytes(1000)))
		result <- err
	}()
	f.expectUploads(1, 1)
	cancel()
	if err := <-result; err == nil {
		t.Error("an upload that was not decided succeeded")
	}
}

// TestNoDigestInTheLog: neither a digest that is right nor one that is wrong is in the log or the catalog.
func TestNoDigestInTheLog(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1000)
	digest := image.Digest(sha256.Sum256(body))
	req := request("a.png")
	req.Digest = &digest
	if rec := f.expectRecord(f.broadcast(req, body, nil)); rec.Sealed == nil || *rec.Sealed != sealed(digest) {
		t.Errorf("the record is %+v", rec)
	}
	wrong := request("b.png")
	wrong.Digest = &image.Digest{0xab, 0xcd, 0xef, 1}
	answers := f.broadcast(wrong, body, nil)
	f.expectKind(answers, image.KindDigest)
	f.log.mu.Lock()
	defer f.log.mu.Unlock()
	text := string(f.log.text) + fmt.Sprint(answers)
	for _, d := range []image.Digest{digest, *wrong.Digest} {
		inBase64 := base64.StdEncoding.EncodeToString(d[:6])
		if strings.Contains(text, d.String()[:8]) || strings.Contains(text, inBase64) {
			t.Errorf("the digest %v is in the log, or in an error: %s", d, text)
		}
	}
}
