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

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// expectCopiesWithout expects that a record has two copies, none of them on a node.
func expectCopiesWithout(t *testing.T, node image.NodeID, rec *image.Record) {
	t.Helper()
	if slices.Contains(rec.Replicas(), node) || len(rec.Copies) != 2 {
		t.Fatalf("record %+v, want two copies and none on node %d", rec, node)
	}
}

// stalled has no copy become durable on a node before the function that it returns is called.
func (f *fleet) stalled(ids ...image.NodeID) (release func()) {
	gate := make(chan struct{})
	for _, id := range ids {
		f.vaults[id].stall = gate
	}
	release = sync.OnceFunc(func() { close(gate) })
	f.t.Cleanup(release)
	return release
}

// begin broadcasts a body, and returns what gives the answers.
func (f *fleet) begin(req image.Request, body []byte) <-chan []answer {
	done := make(chan []answer, 1)
	go func() { done <- f.broadcast(req, body, nil) }()
	return done
}

// each runs a test for each node as leader and each as victim.
func each(t *testing.T, test func(t *testing.T, leader, victim image.NodeID)) {
	for leader := image.NodeID(1); leader <= 3; leader++ {
		for victim := image.NodeID(1); victim <= 3; victim++ {
			t.Run(fmt.Sprintf("leader %d, victim %d", leader, victim), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { test(t, leader, victim) })
			})
		}
	}
}

// expectFrom expects that the owner of a record says whom it has the upload from: 0, when it was its first
// owner.
func (f *fleet) expectFrom(rec *image.Record, first image.NodeID) {
	f.t.Helper()
	want := first
	if rec.Owner == first {
		want = 0
	}
	if o := f.expectOwned(rec); o.From != want {
		f.t.Errorf("Owned of %+v, taken over from %d, want %d", o.Record, o.From, want)
	}
}

// TestNodeDiesBeforeStored kills the owner, the replica and the standby, the leader or another node, once all
// bytes are there and before any copy is durable.
func TestNodeDiesBeforeStored(t *testing.T) { nodeDiesBeforeStored(t, (*fleet).begin) }

// nodeDiesBeforeStored sends an upload for the nodes 1 and 2 by begin.
func nodeDiesBeforeStored(
	t *testing.T, begin func(f *fleet, req image.Request, body []byte) <-chan []answer,
) {
	each(t, func(t *testing.T, leader, victim image.NodeID) {
		f := newFleet(t, nil)
		f.lead(leader)
		body := randomBytes(1 << 20)
		release := f.stalled(1, 2, 3)
		req := f.named(body, 1, 2)
		done := begin(f, req, body)
		synctest.Wait()
		began := time.Now()
		f.kill(victim)
		synctest.Wait()
		release()
		rec := f.expectRecord(<-done, victim)
		expectCopiesWithout(t, victim, rec)
		f.expectStored(rec, body) // its late file is removed too
		f.expectFrom(rec, 1)
		f.expectEntries("commit")
		if took := time.Since(began); took > time.Second {
			t.Errorf("the others took over after %v", took)
		}
		f.expectNothingLeft()
	})
}

// TestNodeDiesWhenStored kills a node whose copy was reported: the record may have it.
func TestNodeDiesWhenStored(t *testing.T) {
	each(t, func(t *testing.T, leader, victim image.NodeID) {
		f := newFleet(t, nil)
		f.lead(leader)
		body := randomBytes(1 << 20)
		release := f.log.holdBack("commit")
		req := f.named(body, 1, 2)
		done := f.begin(req, body)
		synctest.Wait()
		f.kill(victim)
		synctest.Wait()
		release()
		rec := f.expectRecord(<-done, victim)
		f.expectStored(rec, body)
		f.expectFrom(rec, 1)
		f.expectNothingLeft()
	})
}

// TestNodeIsPaused: a node that takes nothing and says nothing, and is seen as up, loses its part when it has
// said nothing for long enough. When it goes on its copy is good for nothing.
func TestNodeIsPaused(t *testing.T) {
	each(t, func(t *testing.T, leader, victim image.NodeID) {
		f := newFleet(t, nil)
		f.lead(leader)
		body := randomBytes(1 << 20)
		release := f.stalled(1, 2, 3)
		req := f.named(body, 1, 2)
		done := f.begin(req, body)
		synctest.Wait()
		began := time.Now()
		f.pause(victim)
		release()
		var rec *image.Record
		eventually(t, "the others to commit", func() bool {
			f.log.mu.Lock()
			defer f.log.mu.Unlock()
			rec, _ = catalog.GetRecord(f.log.db, req.User, req.Name)
			return rec != nil
		})
		took := time.Since(began)
		f.resume(victim)
		f.expectRecord(append(<-done, answer{rec: rec}))
		f.expectStored(rec, body)
		if victim < 3 {
			expectCopiesWithout(t, victim, rec)
		}
		if most := f.nodes[1].TakeoverTimeout + time.Second; took > most {
			t.Errorf("committed after %v, want at most %v", took, most)
		}
		f.expectNothingLeft()
	})
}

// TestSlowDiskLosesItsPart: the owner, or the replica, has all bytes and does not store them.
func TestSlowDiskLosesItsPart(t *testing.T) {
	slowDiskLosesItsPart(t, func(f *fleet, req image.Request, body []byte) []answer {
		return f.broadcast(req, body, nil)
	})
}

// slowDiskLosesItsPart sends an upload for the nodes 1 and 2 by send.
func slowDiskLosesItsPart(
	t *testing.T, send func(f *fleet, req image.Request, body []byte) []answer,
) {
	each(t, func(t *testing.T, leader, slow image.NodeID) {
		f := newFleet(t, nil)
		f.lead(leader)
		body := randomBytes(1 << 20)
		release := f.stalled(slow)
		req := f.named(body, 1, 2)
		began := time.Now()
		rec := f.expectRecord(send(f, req, body))
		took := time.Since(began)
		expectCopiesWithout(t, slow, rec)
		if slow == 3 && took > 0 || took > f.nodes[1].TakeoverTimeout+time.Second {
			t.Errorf("committed after %v", took)
		}
		f.expectFrom(rec, 1)
		release()
		f.expectStored(rec, body)
		f.expectEntries("commit")
		f.expectNothingLeft()
	})
}

// TestRelayOutlivesANode kills a node, the leader or another one, while the node that the client sends to
// passes the bytes on.
func TestRelayOutlivesANode(t *testing.T) {
	each(t, func(t *testing.T, leader, victim image.NodeID) {
		for relay := image.NodeID(1); relay <= 3; relay++ {
			if relay == victim {
				continue
			}
			f := newFleet(t, nil)
			f.lead(leader)
			body := randomBytes(1 << 20)
			req := f.named(body, 1, 2)
			open := make(chan struct{})
			done := make(chan answer)
			go func() {
				rec, err := f.nodes[relay].Receive(t.Context(), req, gated(body, 1000, open))
				done <- answer{relay, rec, err}
			}()
			synctest.Wait()
			f.kill(victim)
			time.Sleep(time.Second) // of the bubble's clock
			close(open)
			rec := f.expectRecord([]answer{<-done})
			expectCopiesWithout(t, victim, rec)
			f.expectStored(rec, body)
			f.expectEntries("commit")
			f.expectNothingLeft()
		}
	})
}

func TestDiskFullGoesToTheStandby(t *testing.T) { synctest.Test(t, diskFullGoesToTheStandby) }

func diskFullGoesToTheStandby(t *testing.T) {
	f := newFleet(t, nil)
	full := image.Errorf(image.KindDiskFull, "disk full")
	f.vaults[2].refuse(full)
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
	f.vaults[3].refuse(full)
	f.expectKind(f.broadcast(request("too many"), body, nil), image.KindDiskFull)
	f.expectNothing("too many")
	f.expectNothingLeft()
}

// TestNothingIsReportedBeforeItIsDurable: a node whose disk does not keep the file has no part in the
// record, whatever it was given.
func TestNothingIsReportedBeforeItIsDurable(t *testing.T) {
	synctest.Test(t, nothingIsReportedBeforeItIsDurable)
}

func nothingIsReportedBeforeItIsDurable(t *testing.T) {
	f := newFleet(t, nil)
	f.vaults[2].lose = image.Errorf(image.KindAborted, "the disk failed")
	body := randomBytes(1 << 20)
	for i := range 6 {
		f.expectStored(f.expectRecord(f.broadcast(request(fmt.Sprint(i)), body, nil)), body)
	}
}

func TestConnectionCut(t *testing.T) {
	body := randomBytes(2 << 20)
	run := func(name string, test func(t *testing.T)) {
		t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
	}
	run("to the storing nodes", func(t *testing.T) {
		for _, node := range []image.NodeID{1, 2, 3} {
			f := newFleet(t, nil)
			answers := f.broadcast(request("a.png"), body,
				map[image.NodeID]io.Reader{node: cutAfter(body, 1<<20)})
			rec := f.expectRecord(answers, node)
			expectCopiesWithout(t, node, rec)
			f.expectStored(rec, body)
			f.expectEntries("commit")
			f.expectNothingLeft()
		}
	})
	run("everywhere", func(t *testing.T) {
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
		f.expectNothingLeft()
		rec := f.expectRecord(f.broadcast(req, body, nil)) // the client tries again, with the same ID
		f.expectStored(rec, body)
	})
}

// A part of a broadcast that comes when the others have been refused counts as a new attempt: it ends in
// bounded time too, and leaves nothing.
func TestWrongDigestComesLate(t *testing.T) {
	for _, late := range []image.NodeID{1, 2, 3} { // the leader and others
		t.Run(fmt.Sprint(late), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { wrongDigestComesLate(t, late) })
		})
	}
}

func wrongDigestComesLate(t *testing.T, late image.NodeID) {
	f := newFleet(t, nil)
	body := randomBytes(1 << 20)
	req := request("a.png")
	req.Digest = &image.Digest{1}
	req.Size = int64(len(body))
	req.Broadcast = []image.NodeID{1, 2, 3}
	// Nodes that say nothing of the late part look like nodes that do not store it, and it may be given up
	// for that first.
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
	f.expectNothingLeft()
}

// TestRelayToANodeThatIsBehind passes bytes on to a node that has not applied what the shard's log says: it
// stores its copy as the leader has decided, and learns later what became of it.
func TestRelayToANodeThatIsBehind(t *testing.T) { synctest.Test(t, relayToANodeThatIsBehind) }

func relayToANodeThatIsBehind(t *testing.T) {
	f := newFleet(t, nil)
	f.lead(3)
	f.log.fallBehind(1)
	body := randomBytes(1 << 20)
	rec, err := f.relay(3, f.named(body, 1, 3), body)
	if err != nil {
		t.Fatal(err)
	}
	f.expectUploads(1, 1)
	f.log.catchUp(1)
	f.expectStored(rec, body)
	f.expectEntries("commit")
	f.expectNothingLeft()
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
	f.expectUploads(2, 0)
	f.expectNoFile(2)
	f.expectStored(f.expectRecord(f.broadcast(req, body, nil)), body)
	f.expectEntries("end", "commit")
	f.expectNothingLeft()
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
				if d := f.decisions(req.ID); len(d) != 1 {
					t.Errorf("its parts were given to others: %v", d)
				}
				f.expectNothingLeft()
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

// TestRelayedToOneNode has all places taken by uploads that claim to come from another node, and come to no
// other. They are free again soon, whether their senders have disconnected or not.
func TestRelayedToOneNode(t *testing.T) { synctest.Test(t, relayedToOneNode) }

func relayedToOneNode(t *testing.T) {
	f := newFleet(t, nil)
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
	free := func(began time.Time) {
		f.expectUploads(1, 0)
		if took := time.Since(began); took > 2*s.TakeoverTimeout+time.Second {
			t.Errorf("their places were free after %v", took)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	answers := send(ctx)
	began := time.Now()
	cancel()
	free(began)
	for range s.UploadsMax {
		<-answers
	}
	began = time.Now()
	answers = send(t.Context())
	for range s.UploadsMax {
		if err := <-answers; image.KindOf(err) != image.KindAborted {
			t.Errorf("an upload that no other node has got: %v", err)
		}
	}
	free(began)
	f.expectNoFile(1)
	f.expectNothingLeft()
}

// TestLeaderlessUploadIsAnswered: on the small side of a partition an upload that has begun is not decided.
// Its client is answered so, and when the shard has a leader again it gets the upload's outcome by sending it
// again.
func TestLeaderlessUploadIsAnswered(t *testing.T) { synctest.Test(t, leaderlessUploadIsAnswered) }

func leaderlessUploadIsAnswered(t *testing.T) {
	f := newFleet(t, func(o *Options) { o.QuorumTimeout = time.Second })
	body := randomBytes(1000)
	for _, stored := range []bool{false, true} {
		release := f.log.holdBack("commit")
		req := request(fmt.Sprint("stored: ", stored))
		var done <-chan []answer
		if stored {
			done = f.begin(req, body)
			synctest.Wait() // two nodes have copies
			f.lead(0)
		} else {
			f.lead(0)
			done = f.begin(req, body)
		}
		f.expectKind(<-done, image.KindNoQuorum)
		f.lead(1)
		release()
		f.expectStored(f.expectRecord(f.broadcast(req, body, nil)), body)
	}
	f.expectNothingLeft()
}

// TestStoredIsReportedWhenTheQuorumIsBack: nodes that have stored while there was no quorum report it once
// there is one again.
func TestStoredIsReportedWhenTheQuorumIsBack(t *testing.T) {
	synctest.Test(t, storedIsReportedWhenTheQuorumIsBack)
}

func storedIsReportedWhenTheQuorumIsBack(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1 << 20)
	release := f.stalled(1, 2, 3)
	req := request("a.png")
	done := f.begin(req, body)
	synctest.Wait()
	f.log.cutOff(true)
	release()
	synctest.Wait() // the nodes have stored and reported it, in vain
	if n := f.vaults[1].count() + f.vaults[2].count() + f.vaults[3].count(); n != 2 {
		t.Fatalf("%d copies before the quorum is back", n)
	}
	began := time.Now()
	f.log.cutOff(false)
	f.expectStored(f.expectRecord(<-done), body)
	if took := time.Since(began); took > 4*time.Second { // before that nobody takes over
		t.Errorf("committed after %v", took)
	}
	if d := f.decisions(req.ID); len(d) != 1 {
		t.Errorf("the upload was given to others: %v", d)
	}
	f.expectNothingLeft()
}

// TestPausedReceiver relays, through little memory, to a node that takes nothing: once it is seen to be
// down the others must not wait for it, nor the client for UploadTimeout.
func TestPausedReceiver(t *testing.T) { synctest.Test(t, pausedReceiver) }

func pausedReceiver(t *testing.T) {
	f := newFleet(t, func(o *Options) { o.StagingBytes = 8 * windowChunks * ChunkBytes })
	body := randomBytes(4 << 20)
	f.paused = []image.NodeID{2}
	for i := range 6 {
		req := request(fmt.Sprint(i))
		f.mu.Lock()
		f.live = []image.NodeID{1, 2, 3}
		f.downs[2] = make(chan struct{})
		f.mu.Unlock()
		done := make(chan error, 1)
		go func() {
			_, err := f.relay(1, req, body)
			done <- err
		}()
		f.decision(req.ID)
		synctest.Wait() // all that can go on without node 2 has
		f.kill(2)
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("no answer, with the decisions %v", f.decisions(req.ID))
		}
	}
	f.expectNothingLeft()
}
