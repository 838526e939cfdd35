package ingest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"imgcluster/cluster/image"
)

// expectCopiesWithout expects that a record has two copies, none of them on a node.
func expectCopiesWithout(t *testing.T, node image.NodeID, rec *image.Record) {
	t.Helper()
	if slices.Contains(rec.Replicas(), node) || len(rec.Copies) != 2 {
		t.Fatalf("record %+v, want two copies and none on node %d", rec, node)
	}
}

func TestOwnerDiesBeforeStored(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(2 << 20)
	gate := make(chan struct{})
	for _, v := range f.vaults {
		v.stall = gate
	}
	done := make(chan []answer)
	req := request("a.png")
	go func() { done <- f.broadcast(req, body, nil) }()
	owner := f.assigned(req.ID).Owner
	f.kill(owner)
	eventually(t, "a reassignment", func() bool { return f.assigned(req.ID).Epoch > 1 })
	close(gate)
	rec := f.expectRecord(<-done, owner)
	expectCopiesWithout(t, owner, rec)
	f.expectStored(rec, body) // its late file is removed too
	if o := f.expectOwned(rec); o.From != owner {
		t.Errorf("Owned of %+v, taken over from %d", o, owner)
	}
}

func TestSlowReplicaLosesItsPart(t *testing.T) {
	f := newFleet(t, quickTakeover)
	body := randomBytes(1 << 20)
	gate := make(chan struct{})
	req := request("a.png")
	hold := make(chan struct{}) // nobody stores before the slow node is chosen
	f.log.mu.Lock()
	f.log.hold["assign"] = hold
	f.log.mu.Unlock()
	done := make(chan []answer)
	go func() { done <- f.broadcast(req, body, nil) }()
	f.vaults[3].stall = gate
	f.vaults[2].stall = gate
	close(hold)
	slow := func() (n int) {
		for _, s := range f.assigned(req.ID).Storing {
			if s.Node != 1 && s.Epoch == 1 {
				n++
			}
		}
		return n
	}
	before := slow()
	eventually(t, "the standby to take a slow node's part", func() bool {
		return slow() < before || before == 1 && f.assigned(req.ID).Epoch > 1
	})
	close(gate)
	rec := f.expectRecord(<-done)
	f.expectStored(rec, body)
}

func TestDiskFullGoesToTheStandby(t *testing.T) {
	f := newFleet(t, nil)
	full := image.Errorf(image.KindDiskFull, "disk full")
	f.vaults[2].fail = full
	body := randomBytes(1 << 20)
	for i := range 6 {
		expectCopiesWithout(t, 2, f.expectRecord(f.broadcast(request(fmt.Sprint(i)), body, nil)))
	}
	for _, id := range []image.NodeID{1, 2, 3} { // the third node is sent the bytes when the second refuses
		rec, err := f.relay(id, request(fmt.Sprint("relayed by ", id)), body)
		if err != nil {
			t.Fatalf("relayed by node %d: %v", id, err)
		}
		expectCopiesWithout(t, 2, rec)
	}
	f.vaults[3].fail = full
	f.expectKind(f.broadcast(request("too many"), body, nil), image.KindDiskFull)
	f.expectNothing("too many")
}

// TestNothingIsReportedBeforeItIsDurable: a node whose disk does not keep the file has no part in the
// record, whatever it was given.
func TestNothingIsReportedBeforeItIsDurable(t *testing.T) {
	f := newFleet(t, nil)
	f.vaults[2].lose = image.Errorf(image.KindAborted, "the disk failed")
	body := randomBytes(1 << 20)
	for i := range 6 {
		f.expectStored(f.expectRecord(f.broadcast(request(fmt.Sprint(i)), body, nil)), body)
	}
}

func TestConnectionCut(t *testing.T) {
	body := randomBytes(2 << 20)
	t.Run("to the storing nodes", func(t *testing.T) {
		for _, node := range []image.NodeID{1, 2, 3} {
			f := newFleet(t, nil)
			answers := f.broadcast(request("a.png"), body,
				map[image.NodeID]io.Reader{node: cutAfter(body, 1<<20)})
			rec := f.expectRecord(answers, node)
			expectCopiesWithout(t, node, rec)
			f.expectStored(rec, body)
		}
	})
	t.Run("everywhere", func(t *testing.T) {
		f := newFleet(t, nil)
		req := request("a.png")
		cut := map[image.NodeID]io.Reader{}
		for n := range f.nodes {
			cut[n] = cutAfter(body, 1<<20)
		}
		f.expectKind(f.broadcast(req, body, cut), image.KindIncomplete)
		f.expectNothing("a.png")
		for id, v := range f.vaults {
			if v.count() != 0 {
				t.Errorf("node %d kept a file", id)
			}
		}
		rec := f.expectRecord(f.broadcast(req, body, nil)) // the client tries again, with the same ID
		f.expectStored(rec, body)
	})
}

// A part of a broadcast that comes when the others have been refused counts as a new attempt: it ends in
// bounded time too, and leaves nothing.
func TestWrongDigestComesLate(t *testing.T) {
	for _, late := range []image.NodeID{1, 2, 3} { // the leader and others
		t.Run(fmt.Sprint(late), func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, quickTakeover)
			body := randomBytes(1 << 20)
			req := request("a.png")
			req.Digest = &image.Digest{1}
			req.Size = int64(len(body))
			req.Broadcast = []image.NodeID{1, 2, 3}
			// A host that is busy for longer than TakeoverTimeout looks like nodes that do not store, and
			// the upload may be given up for that first.
			refused := func(err error) bool {
				kind := image.KindOf(err)
				return kind == image.KindDigest || kind == image.KindAborted
			}
			var early sync.WaitGroup
			others := slices.DeleteFunc([]image.NodeID{1, 2, 3},
				func(id image.NodeID) bool { return id == late })
			for id, b := range together(body, others...) {
				early.Go(func() {
					if _, err := f.nodes[id].Receive(t.Context(), req, b); !refused(err) {
						t.Errorf("node %d: %v, want digest-mismatch or aborted", id, err)
					}
				})
			}
			early.Wait()
			if _, err := f.nodes[late].Receive(t.Context(), req, bytes.NewReader(body)); !refused(err) {
				t.Errorf("node %d, late: %v, want digest-mismatch or aborted", late, err)
			}
			f.expectNothing("a.png")
		})
	}
}

// TestRelayToANodeThatIsBehind passes bytes on to the leader of the shard before it has applied the
// assignment: it waits for that and decides nothing itself.
func TestRelayToANodeThatIsBehind(t *testing.T) { synctest.Test(t, relayToANodeThatIsBehind) }

func relayToANodeThatIsBehind(t *testing.T) {
	f := newFleet(t, nil)
	f.kill(2)
	f.log.fallBehind(1)
	req := request("a.png")
	body := randomBytes(1 << 20)
	open := make(chan struct{})
	req.Size = int64(len(body))
	type result struct {
		rec *image.Record
		err error
	}
	done := make(chan result)
	go func() {
		rec, err := f.nodes[3].Receive(t.Context(), req, gated(body, 1000, open))
		done <- result{rec, err}
	}()
	f.expectUploads(1, 1)
	// of the bubble's clock: a broadcast's receiver would have decided
	time.Sleep(3 * f.nodes[1].AssignTimeout)
	f.log.mu.Lock()
	if f.log.index != 1 {
		t.Errorf("%d commands were proposed, want the assignment alone", f.log.index)
	}
	f.log.mu.Unlock()
	f.log.catchUp(1)
	close(open)
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	f.expectStored(r.rec, body)
}

// TestUploadReachesOneNodeOnly is a broadcast that two nodes refused: the third must not wait for
// them for ever, and the client's retry under the same ID succeeds.
func TestUploadReachesOneNodeOnly(t *testing.T) { synctest.Test(t, uploadReachesOneNodeOnly) }

func uploadReachesOneNodeOnly(t *testing.T) {
	f := newFleet(t, func(o *Options) { o.TakeoverTimeout = 2 * time.Second })
	body := randomBytes(1 << 20)
	req := request("a.png")
	req.Broadcast = []image.NodeID{1, 2, 3}
	if _, err := f.relay(2, req, body); image.KindOf(err) != image.KindAborted {
		t.Fatalf("%v, want aborted", err)
	}
	// A node that has not applied the failure yet takes the retry for a late part of the first try.
	for id, s := range f.nodes {
		eventually(t, fmt.Sprintf("the upload to fail at node %d", id), func() bool {
			s.watcher.mu.Lock()
			defer s.watcher.mu.Unlock()
			return len(s.watcher.pending) == 0
		})
	}
	f.expectStored(f.expectRecord(f.broadcast(req, body, nil)), body)
}

// TestSlowClient: a body that moves takes as long as it takes, far beyond the time for a takeover and the
// time without progress, whether it is sent to one node or to all, and no node loses its part for that.
func TestSlowClient(t *testing.T) {
	body := randomBytes(3 << 20)
	slow := func() io.Reader { return slowly(body, 30, 200*time.Millisecond) }
	run := func(name string, send func(*fleet, image.Request)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, func(o *Options) {
					o.TakeoverTimeout = time.Second
					o.UploadTimeout = 2 * time.Second
				})
				req := request("a.png")
				send(f, req)
				if u := f.assigned(req.ID); u.Epoch != 1 {
					t.Errorf("its parts were given to others: %+v", u)
				}
			})
		})
	}
	run("to all, slow everywhere", func(f *fleet, req image.Request) {
		f.expectRecord(f.broadcast(req, body, map[image.NodeID]io.Reader{1: slow(), 2: slow(), 3: slow()}))
	})
	// Whichever stands by has all bytes long before one that stores.
	run("to all, one fast", func(f *fleet, req image.Request) {
		less := slowly(body, 30, 150*time.Millisecond)
		f.expectRecord(f.broadcast(req, body, map[image.NodeID]io.Reader{1: slow(), 2: less}))
	})
	run("to one", func(f *fleet, req image.Request) {
		req.Size = int64(len(body))
		if _, err := f.nodes[1].Receive(f.t.Context(), req, slow()); err != nil {
			f.t.Error(err)
		}
	})
}

// TestRelayedThatNobodyAssigns has all places taken by uploads that claim to come from another node. They
// are free again at once when the senders disconnect, and soon when they do not.
func TestRelayedThatNobodyAssigns(t *testing.T) { synctest.Test(t, relayedThatNobodyAssigns) }

func relayedThatNobodyAssigns(t *testing.T) {
	f := newFleet(t, func(o *Options) { o.QuorumTimeout = 2 * time.Second })
	s := f.nodes[1]
	send := func(ctx context.Context) chan error {
		answers := make(chan error, s.UploadsMax)
		for i := range s.UploadsMax {
			req := request(fmt.Sprint(i))
			req.Size = 170
			req.Relayed = true
			req.Broadcast = []image.NodeID{1, 2, 3}
			go func() {
				_, err := s.Receive(ctx, req, bytes.NewReader(randomBytes(170)))
				answers <- err
			}()
		}
		f.expectUploads(1, s.UploadsMax)
		return answers
	}
	ctx, cancel := context.WithCancel(t.Context())
	answers := send(ctx)
	began := time.Now()
	cancel()
	f.expectUploads(1, 0)
	if took := time.Since(began); took > s.QuorumTimeout {
		t.Errorf("the places of disconnected senders were free after %v", took)
	}
	for range s.UploadsMax {
		<-answers
	}
	answers = send(t.Context())
	for range s.UploadsMax {
		if err := <-answers; image.KindOf(err) != image.KindAborted {
			t.Errorf("an upload that nobody assigned: %v", err)
		}
	}
	f.expectUploads(1, 0)
}

// TestLeaderlessUploadIsAnswered: on the small side of a partition an upload that has begun is not decided.
// Its client is answered so, and when the shard has a leader again it gets the upload's outcome by sending it
// again.
func TestLeaderlessUploadIsAnswered(t *testing.T) {
	f := newFleet(t, func(o *Options) { o.QuorumTimeout = 50 * time.Millisecond })
	gate := make(chan struct{})
	f.log.mu.Lock()
	f.log.leader = 0
	f.log.hold = map[string]chan struct{}{"stored": gate}
	f.log.mu.Unlock()
	req := request("a.png")
	body := randomBytes(1000)
	f.expectKind(f.broadcast(req, body, nil), image.KindNoQuorum)
	f.log.mu.Lock()
	f.log.leader = 1
	f.log.mu.Unlock()
	close(gate)
	f.expectRecord(f.broadcast(req, body, nil))
}

// TestStoredIsReportedWhenTheQuorumIsBack: nodes that have stored while there was no quorum report it once
// there is one again.
func TestStoredIsReportedWhenTheQuorumIsBack(t *testing.T) {
	synctest.Test(t, storedIsReportedWhenTheQuorumIsBack)
}

func storedIsReportedWhenTheQuorumIsBack(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1 << 20)
	gate := make(chan struct{})
	for _, v := range f.vaults {
		v.stall = gate
	}
	cut := func(is bool) {
		f.log.mu.Lock()
		defer f.log.mu.Unlock()
		f.log.cut = is
	}
	req := request("a.png")
	done := make(chan []answer)
	go func() { done <- f.broadcast(req, body, nil) }()
	f.assigned(req.ID)
	cut(true)
	close(gate)
	synctest.Wait() // the nodes have stored and reported it, in vain
	if n := f.vaults[1].count() + f.vaults[2].count() + f.vaults[3].count(); n != 2 {
		t.Fatalf("%d copies before the quorum is back", n)
	}
	began := time.Now()
	cut(false)
	f.expectStored(f.expectRecord(<-done), body)
	if took := time.Since(began); took > 4*time.Second { // before that nobody takes over
		t.Errorf("committed after %v", took)
	}
	if u := f.assigned(req.ID); u.Epoch != 1 {
		t.Errorf("the upload was given to others: %+v", u)
	}
}

// TestPausedReceiver relays, through little memory, to a node that takes nothing: once it is seen to be
// down the others must not wait for it, nor the client for UploadTimeout.
func TestPausedReceiver(t *testing.T) { synctest.Test(t, pausedReceiver) }

func pausedReceiver(t *testing.T) {
	f := newFleet(t, func(o *Options) { o.StagingBytes = 8 * windowChunks * ChunkBytes })
	body := randomBytes(4 << 20)
	for i := range 6 {
		req := request(fmt.Sprint(i))
		f.mu.Lock()
		f.live = []image.NodeID{1, 2, 3}
		f.paused = []image.NodeID{2}
		f.mu.Unlock()
		done := make(chan error, 1)
		go func() {
			_, err := f.relay(1, req, body)
			done <- err
		}()
		f.assigned(req.ID)
		synctest.Wait() // all that can go on without node 2 has
		f.kill(2)
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no answer, with the upload at %+v", f.assigned(req.ID))
		}
	}
}
