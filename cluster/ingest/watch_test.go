package ingest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// TestSameIDInAnotherShard uses an ID that an upload of another shard has: the events of the one are not
// those of the other, neither where it is in progress nor where it is waited for.
func TestSameIDInAnotherShard(t *testing.T) {
	f := newFleet(t, quickTakeover)
	req := request("a.png")
	body := randomBytes(1 << 20)
	open := make(chan struct{})
	other := func(state catalog.State) {
		u := &catalog.Upload{
			ID: req.ID, User: "alice", Name: "b.png", Bytes: 5, State: state, Epoch: 9, Owner: 1, Replicas: 2,
			Problem: &image.Problem{Code: image.KindAborted},
		}
		for _, s := range f.nodes {
			s.Applied(testShard+1, []catalog.Event{{Upload: u}})
		}
	}
	other(catalog.Pending)
	answers := make(chan []answer)
	go func() {
		answers <- f.broadcast(req, body, map[image.NodeID]io.Reader{
			1: gated(body, 1000, open), 2: gated(body, 1000, open), 3: cutAfter(body, 0),
		})
	}()
	eventually(t, "the assignment", func() bool { return f.assigned(req.ID) != nil })
	other(catalog.Failed)
	close(open)
	f.expectStored(f.expectRecord(<-answers, 3), body)
}

func TestRestartGivesUpOldParts(t *testing.T) {
	f := newFleet(t, nil)
	req := request("a.png")
	f.assign(req, 1, 2)
	f.vaults[2].leave(req.ID, "durable, but not reported")
	if err := f.nodes[2].Recover(t.Context(), testShard); err != nil {
		t.Fatal(err)
	}
	if u := f.assigned(req.ID); u.State != catalog.Failed {
		t.Errorf("the upload is %+v", u)
	}
	f.expectNoFile(2)
}

// TestLateEventsOfAFailedUpload is an upload that failed, and was sent again under its ID: the second
// attempt's events reach what is left of the first one here.
func TestLateEventsOfAFailedUpload(t *testing.T) {
	f := newFleet(t, nil)
	s := f.nodes[1]
	req := request("a.png")
	req.Size = 10
	u, err := s.register(req)
	if err != nil {
		t.Fatal(err)
	}
	defer s.unregister(u)
	in := func(epoch uint32, state catalog.State) *catalog.Upload {
		return &catalog.Upload{ID: req.ID, User: req.User, Name: req.Name, Epoch: epoch, State: state}
	}
	for _, state := range []*catalog.Upload{
		in(1, catalog.Pending), in(1, catalog.Failed), in(2, catalog.Pending), in(2, catalog.Committed),
	} {
		s.Applied(testShard, []catalog.Event{{Upload: state}})
	}
	if got := u.latest(); got.State != catalog.Failed || got.Epoch != 1 {
		t.Errorf("the failed upload became %s in epoch %d", got.State, got.Epoch)
	}
	again, err := s.register(req)
	if err != nil || again == nil {
		t.Fatalf("sent again: %v, %v", again, err)
	}
	defer s.unregister(again)
	again.join(in(1, catalog.Failed))
	s.Applied(testShard, []catalog.Event{{Upload: in(1, catalog.Failed)}})
	if got := again.latest(); got != nil {
		t.Errorf("the second attempt has the state of the first: %+v", got)
	}
}

// TestFileOfEarlierProcess is a copy of an upload that a node had begun before it started again: its file
// is there and the client sends the upload again, when the slot is given to another node.
func TestFileOfEarlierProcess(t *testing.T) {
	f := newFleet(t, nil)
	s := f.nodes[2]
	req := request("a.png")
	req.Size = 10
	f.vaults[2].leave(req.ID, "ten bytes!")
	f.catchUp(false)
	f.assign(req, 2, 2, 3)
	f.catchUp(true)
	u, err := s.register(req)
	if err != nil {
		t.Fatal(err)
	}
	defer s.unregister(u)
	f.reassign(req.ID, 1, 2)
	f.expectNoFile(2)
}

// TestFileOfFailedAttempt: a file that an earlier process has left stays while its shard waits for a copy of
// the upload, since the report of this one may be on its way, and goes when another one is reported.
func TestFileOfFailedAttempt(t *testing.T) {
	f := newFleet(t, nil)
	s := f.nodes[2]
	req := request("a.png")
	f.assign(req, 1, 2)
	old := f.vaults[2].leave(req.ID, "durable, but not reported")
	if _, err := s.watcher.reload(testShard); err != nil {
		t.Fatal(err)
	}
	f.reassign(req.ID, 1, 3) // it goes on
	if s.collector.clean(pendingKey{testShard, req.ID}); f.vaults[2].file(old) == nil {
		t.Fatal("a file that may be reported yet was deleted")
	}
	now := f.vaults[2].leave(req.ID, "the bytes")
	f.propose(catalog.Command{Stored: &catalog.Stored{ID: req.ID, Copies: []catalog.StoredCopy{
		{Copy: image.Copy{Node: 2, Attempt: now.Attempt}, Epoch: 1},
	}}})
	eventually(t, "the other file to go", func() bool { return f.vaults[2].file(old) == nil })
	if f.vaults[2].file(now) == nil {
		t.Error("the file that the record names is gone")
	}
	eventually(t, "nothing to be left", func() bool {
		s.watcher.mu.Lock()
		defer s.watcher.mu.Unlock()
		return len(s.watcher.left) == 0
	})
}

// TestTaskEndsUndecided has an upload end on a node before the log has decided it, with its file durable: it
// stays until the log does, and goes when that names another copy.
func TestTaskEndsUndecided(t *testing.T) {
	f := newFleet(t, nil)
	s := f.nodes[2]
	req := request("a.png")
	req.Size = 1000
	req.Broadcast = []image.NodeID{2, 3}
	f.log.mu.Lock()
	f.log.hold["stored"] = make(chan struct{}) // its report does not reach the log
	f.log.mu.Unlock()
	f.assign(req, 1, 2, 3)
	ctx, cancel := context.WithCancel(t.Context())
	answered := make(chan error)
	go func() {
		_, err := s.Receive(ctx, req, bytes.NewReader(randomBytes(1000)))
		answered <- err
	}()
	eventually(t, "the file", func() bool { return f.vaults[2].count() == 1 })
	s.local(testShard, req.ID).cancel(errors.New("test"))
	<-answered
	cancel()
	f.expectUploads(2, 0)
	if f.vaults[2].count() != 1 {
		t.Fatal("the file is gone, and its report may be on its way")
	}
	f.reassign(req.ID, 1, 2)
	f.expectNoFile(2)
}

// TestFileOfLostSlot has a slot of an upload given to another node while its file is becoming durable,
// and the upload end here before it is decided: the file is removed, although nobody asks for it any more.
func TestFileOfLostSlot(t *testing.T) {
	f := newFleet(t, nil)
	s := f.nodes[2]
	v := f.vaults[2]
	v.stall = make(chan struct{})
	body := randomBytes(1000)
	req := request("a.png")
	req.Size = int64(len(body))
	req.Broadcast = []image.NodeID{2, 3}
	f.log.hold["stored"] = make(chan struct{}) // its report does not reach the log
	u, err := s.register(req)
	if err != nil {
		t.Fatal(err)
	}
	p := &task{s: s, u: u}
	if err := u.spool.fill(bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	p.follow(&catalog.Upload{
		ID: req.ID, Epoch: 1, State: catalog.Pending, Owner: 2, Holders: req.Broadcast,
		Storing: []catalog.Slot{{Node: 2, Epoch: 1}},
	})
	v.stall <- struct{}{} // it is about to become durable
	p.follow(
		&catalog.Upload{ID: req.ID, Epoch: 2, State: catalog.Pending, Owner: 3, Holders: []image.NodeID{3}},
	)
	close(v.stall)
	p.wg.Wait()
	if v.count() != 0 {
		t.Error("the file of a slot that was lost is still there")
	}
	s.unregister(u)
}

func TestAbandonedUploadIsFailed(t *testing.T) {
	f := newFleet(t, func(o *Options) { o.UploadTimeout = 100 * time.Millisecond })
	req := request("a.png")
	f.assign(req, 2, 2, 3)
	eventually(t, "the leader to fail it", func() bool { return f.assigned(req.ID).State == catalog.Failed })
}

// TestChangeDuringReload is an upload that is given to another node while a node reloads what is pending.
// One that went by what was before would try for ever to change an epoch that is over.
func TestChangeDuringReload(t *testing.T) {
	var change atomic.Pointer[func()]
	f := newFleet(t, func(o *Options) { o.Log = changingLog{o.Log, &change} })
	s := f.nodes[1]
	req := request("a.png")
	f.assign(req, 1, 2, 3)
	reassign := sync.OnceFunc(func() { f.reassign(req.ID, 1, 2) })
	change.Store(&reassign)
	_, err := s.watcher.reload(testShard)
	change.Store(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.watcher.mu.Lock()
	defer s.watcher.mu.Unlock()
	if p := s.watcher.pending[pendingKey{testShard, req.ID}]; p == nil || p.state.Epoch != 2 {
		t.Errorf("the node watches over %+v", p)
	}
}
