package ingest

import (
	"context"
	"sync"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// upload is one upload on this node.
type upload struct {
	req      image.Request
	shard    uint64
	began    time.Time
	spool    *spool
	filling  sync.WaitGroup // Receive is reading the body
	changed  chan struct{}  // capacity 1: state or spool changed
	takeover time.Duration  // Options.TakeoverTimeout
	done     chan struct{}  // closed when the log has decided
	left     chan struct{}  // closed when the sender is gone without an answer
	ctx      context.Context
	cancel   context.CancelCauseFunc

	mu    sync.Mutex
	past  uint32          // epoch in which an earlier attempt failed
	state *catalog.Upload // newest from the log, nil before the assignment
	first image.NodeID    // the owner that it was assigned to first
}

func newUpload(s *Service, req image.Request) *upload {
	u := &upload{
		req:      req,
		shard:    s.ShardOf(req.User, req.Name),
		began:    time.Now(),
		takeover: s.TakeoverTimeout,
		spool:    newSpool(s.arena, s.pieces, req.Size),
		changed:  make(chan struct{}, 1),
		done:     make(chan struct{}),
		left:     make(chan struct{}),
	}
	u.ctx, u.cancel = context.WithCancelCause(s.ctx)
	u.filling.Add(1)
	return u
}

func (u *upload) signal() {
	select {
	case u.changed <- struct{}{}:
	default:
	}
}

// join takes what the log said before the upload came here: an attempt that goes on, or one that
// failed, of which it hears no more.
func (u *upload) join(known *catalog.Upload) {
	if known.State == catalog.Failed {
		u.mu.Lock()
		u.past = known.Epoch
		u.mu.Unlock()
		return
	}
	u.update(known)
}

// update takes what the log says, unless something newer is known. What is decided stays: a failed
// upload that is sent again under its ID is another upload here. A client may have used the ID for another
// name before; where this node learns that late, the upload ends.
func (u *upload) update(state *catalog.Upload) {
	u.mu.Lock()
	defer u.mu.Unlock()
	old := u.state
	if old != nil && old.Finished() {
		return
	}
	if state.User != u.req.User || state.Name != u.req.Name {
		u.cancel(conflict(u.req.ID))
		return
	}
	older := state.Epoch <= u.past || old != nil && old.Epoch > state.Epoch
	if older && state.State != catalog.Committed { // whose epoch may be forgotten, and nothing comes after it
		return
	}
	if state.Finished() {
		close(u.done)
	}
	if old == nil {
		u.first = state.Owner
	}
	u.state = state
	u.signal()
}

func (u *upload) latest() *catalog.Upload {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state
}

// failed reports whether this attempt can have no success any more.
func (u *upload) failed() bool {
	state := u.latest()
	return u.spool.failed() != nil || state != nil && state.State == catalog.Failed
}

// receives reports whether the body comes in: not all of it is here, and some came lately.
func (u *upload) receives() bool {
	moved, ended := u.spool.progress()
	return !ended && time.Since(moved) < u.takeover
}

// owned describes an upload that has committed with this node as its owner.
func (u *upload) owned(rec *image.Record) Owned {
	o := Owned{Record: rec, Relayed: u.req.Relayed || len(u.req.Broadcast) == 0, Took: time.Since(u.began)}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.first != rec.Owner {
		o.From = u.first
	}
	return o
}
