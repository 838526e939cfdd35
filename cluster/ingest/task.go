package ingest

import (
	"context"
	"errors"
	"sync"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
)

// task is this node's work on one upload.
type task struct {
	s         *Service
	u         *upload
	wg        sync.WaitGroup // all its goroutines but senders
	senders   sync.WaitGroup
	asking    bool   // an assignment is being proposed
	cutOff    bool   // the body ended early, before an assignment
	epoch     uint32 // in which it stores or has stored, 0: not yet
	file      image.FileID
	stop      context.CancelCauseFunc
	sending   map[image.NodeID]context.CancelCauseFunc // nodes that it has begun to send to
	roleKnown bool
	waiting   bool                       // for the storing nodes, with all bytes here
	moving    map[image.NodeID]time.Time // when a storing node was last seen to receive the body
}

// Why a task ends before this node's copy is stored.
var (
	errStale   = errors.New("the upload was given to another node")
	errDecided = errors.New("the upload was decided")
)

// run does this node's work on an upload until the log has decided it.
func (s *Service) run(u *upload) {
	p := &task{
		s: s, u: u,
		sending: map[image.NodeID]context.CancelCauseFunc{},
		moving:  map[image.NodeID]time.Time{},
	}
	p.loop()
	p.linger()
	u.cancel(errSpoolClosed)
	u.spool.close()
	p.wg.Wait()
	u.filling.Wait()
	if state := u.latest(); p.epoch != 0 && !state.Finished() {
		s.watcher.leave(pendingKey{u.shard, u.req.ID})
	}
	s.unregister(u)
}

// lingerMax is how long a relay waits for its senders to finish once the log has decided: a sender that is
// cancelled loses its connection.
const lingerMax = time.Second

func (t *task) loop() {
	deadline := time.NewTimer(t.s.UploadTimeout)
	defer deadline.Stop()
	next := time.NewTimer(t.s.placer.delay(t.u.shard, t.u.req.Broadcast))
	defer next.Stop()
	left := t.u.left
	for {
		state := t.u.latest()
		if state != nil {
			t.follow(state)
			if state.Finished() {
				return
			}
		}
		select {
		case <-t.u.changed:
			if t.u.spool.complete() && !t.waiting && t.u.latest() != nil {
				t.waiting = true
				next.Reset(t.s.TakeoverTimeout)
			}
		case <-next.C:
			next.Reset(t.step())
		case <-deadline.C:
			more := t.s.patience(t.u)
			if more <= 0 {
				return
			}
			deadline.Reset(more)
		case <-left:
			left = nil
			if t.u.req.Relayed && t.u.latest() == nil {
				return // nobody assigns it any more
			}
		case <-t.u.ctx.Done():
			return
		}
	}
}

// step acts on what should have happened by now, and returns when to look again.
func (t *task) step() time.Duration {
	s, u := t.s, t.u
	state := u.latest()
	switch {
	case state == nil && u.spool.failed() != nil && !t.cutOff:
		t.cutOff = true // another node decides now; if it asks this one, the slot is given up at once
		return 2 * s.AssignTimeout
	case state == nil && u.spool.failed() != nil:
		u.cancel(u.spool.failed()) // nobody was asked to store it, and this node cannot
	case state == nil && !t.asking && !u.req.Relayed: // a relayed one is in the log, and will come
		t.asking = true
		t.wg.Go(func() {
			if err := t.assign(); err != nil && u.latest() == nil {
				u.cancel(err)
			}
		})
	case state == nil && u.req.Relayed && time.Since(u.spool.began) > s.QuorumTimeout:
		u.cancel(image.Errorf(image.KindAborted,
			"upload %s was relayed to node %d, and no node has assigned it", u.req.ID, s.Node).
			WithHint("send it again, without Imgcluster-Relayed"))
	case t.waiting:
		return t.takeOver(state)
	}
	return s.AssignTimeout
}

// assign decides which nodes store the upload and proposes that. What the log says reaches u.
func (t *task) assign() error {
	a, err := t.s.placer.decide(t.u.shard, t.u.req)
	if err != nil {
		return err
	}
	defer t.s.placer.release(a.ID)
	failpoint.Here("upload/before-assign")
	r, err := t.propose(t.u.ctx, catalog.Command{Assign: a})
	if err != nil {
		return err
	}
	failpoint.Here("upload/assigned")
	return r.Err()
}

// propose proposes a command about the upload, and updates u from the result.
func (t *task) propose(ctx context.Context, c catalog.Command) (catalog.Result, error) {
	r, err := t.s.Log.Propose(ctx, t.u.shard, c)
	if err == nil && r.Upload != nil {
		t.u.update(r.Upload)
	}
	return r, err
}

// follow brings what this node does in line with the log.
func (t *task) follow(state *catalog.Upload) {
	if state.Finished() {
		t.finish(state)
		return
	}
	slot := state.Slot(t.s.Node)
	if t.stop != nil && (slot == nil || slot.Epoch != t.epoch) {
		t.stop(errStale)
		t.stop = nil
	}
	if slot != nil && slot.Epoch != t.epoch && !slot.Stored() {
		t.startStoring(slot.Epoch)
	}
	if t.relays() {
		t.followSenders(state)
	}
	if !t.roleKnown {
		t.roleKnown = true
		standby := t.standsBy(state)
		t.u.spool.retain(t.relays() || standby)
		if standby {
			failpoint.Here("upload/standby")
		}
	}
}

// standsBy reports whether this node is the one that holds the bytes for a takeover: the first holder
// that does not store. More than one would cost memory bandwidth for the case that two nodes fail
// during one upload, and then the client sends it again.
func (t *task) standsBy(state *catalog.Upload) bool {
	for _, n := range state.Holders {
		if state.Slot(n) == nil {
			return n == t.s.Node
		}
	}
	return false
}

// relays reports whether this node sends the upload on to others: its client sent it to this one alone.
func (t *task) relays() bool { return len(t.u.req.Broadcast) == 0 }

// finish ends this node's work on a decided upload and deletes its file when the record does not
// name it.
func (t *task) finish(state *catalog.Upload) {
	failpoint.Here("upload/decided")
	if t.stop != nil {
		t.stop(errDecided)
	}
	t.u.spool.retain(false)
	rec := state.Record
	if t.epoch != 0 && (rec == nil || !rec.Has(t.s.Node, t.file.Attempt)) {
		t.wg.Wait()
		t.s.collector.discard(t.file)
	}
	if rec != nil && rec.Owner == t.s.Node {
		t.s.Owned(t.u.owned(rec))
	}
}
