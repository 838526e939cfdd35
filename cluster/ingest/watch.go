package ingest

import (
	"maps"
	"slices"
	"sync"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// watchEvery is the period in which the watcher looks over the pending uploads, beside every change of
// who is alive.
const watchEvery = 500 * time.Millisecond

// watcher knows the uploads that the log has not decided, and reassigns those that are stuck. Its lock
// comes before the Service's.
type watcher struct {
	s    *Service
	kick chan struct{} // capacity 1

	mu      sync.Mutex
	pending map[pendingKey]*pending
	changed map[uint64]map[image.ID]bool // by shard, uploads that changed since its reload began
	// left are uploads of which this node may have files that no task knows: of an earlier process, or of a
	// task that ended before the log had decided.
	left map[pendingKey]bool
}

// pendingKey names an upload that the log has not decided.
type pendingKey struct {
	shard uint64
	id    image.ID
}

// pending is an upload that the log has not decided.
type pending struct {
	pendingKey
	state      *catalog.Upload
	progressed time.Time // when this node first saw it, or last saw its body move
	asked      time.Time // this node is to store it, in the epoch of now
	busy       bool      // a reassignment is being proposed
	absent     bool      // the upload is not in progress here
}

func newWatcher(s *Service) *watcher {
	return &watcher{
		s: s, kick: make(chan struct{}, 1),
		pending: map[pendingKey]*pending{}, changed: map[uint64]map[image.ID]bool{},
		left: map[pendingKey]bool{},
	}
}

// wake makes run look at once. It does not block.
func (w *watcher) wake() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

func (w *watcher) run() {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-w.s.ctx.Done():
			return
		case <-ticker.C:
		case <-w.kick:
		}
		w.reconcile()
	}
}

// update takes what the log says of an upload.
func (w *watcher) update(shard uint64, now *catalog.Upload) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if changed := w.changed[shard]; changed != nil {
		changed[now.ID] = true
	}
	key := pendingKey{shard, now.ID}
	if now.Finished() {
		delete(w.pending, key)
	} else {
		w.track(key, now)
	}
	slot := now.Slot(w.s.Node)
	switch {
	case w.s.Serves(shard):
		if w.left[key] && (now.Finished() || slot == nil || slot.Stored()) {
			w.clean(key)
		}
	case now.Finished():
		delete(w.left, key) // the sweep after the start has it
	case slot != nil:
		w.left[key] = true // an earlier process may have read this in the log before this one
	}
}

// leave has the files of an upload deleted, once the log has no use for them, that a task did not delete.
func (w *watcher) leave(key pendingKey) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left[key] = true
	w.clean(key)
}

// clean queues the removal of the useless files of an upload that is in left. The caller holds mu.
func (w *watcher) clean(key pendingKey) {
	queued := w.s.collector.later(func() {
		if !w.s.collector.clean(key) {
			w.mu.Lock()
			defer w.mu.Unlock()
			delete(w.left, key)
		}
	})
	if !queued {
		delete(w.left, key)
	}
}

// track keeps the newest state of a pending upload. The caller holds mu.
func (w *watcher) track(key pendingKey, state *catalog.Upload) {
	now := time.Now()
	p := w.pending[key]
	if p == nil {
		w.pending[key] = &pending{pendingKey: key, state: state, progressed: now, asked: now}
		return
	}
	before, after := p.state.Slot(w.s.Node), state.Slot(w.s.Node)
	if after != nil && (before == nil || before.Epoch != after.Epoch) {
		p.asked = now
	}
	p.state = state
}

func (w *watcher) forget(shard uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.pending, func(k pendingKey, _ *pending) bool { return k.shard == shard })
	maps.DeleteFunc(w.left, func(k pendingKey, _ bool) bool { return k.shard == shard })
}

// lastProgress returns when an upload last made progress as far as the watcher knows, the zero time when it
// watches none.
func (w *watcher) lastProgress(shard uint64, id image.ID) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.pending[pendingKey{shard, id}]; p != nil {
		return p.progressed
	}
	return time.Time{}
}

// reconcile reassigns the uploads that cannot go on as they are: as the leader, those whose storing
// nodes are down or that take too long; on any node, those of which it should store a copy but never
// got a byte: before a standby, which cannot know, takes over from the wrong one.
func (w *watcher) reconcile() {
	up := w.s.Up()
	patience := w.s.TakeoverTimeout / 2
	w.s.mu.Lock()
	if w.s.draining() { // what is not here now will not come
		patience = 0
	}
	w.s.mu.Unlock()
	for _, p := range w.idle() {
		drop, cause := w.stuck(&p, up, patience)
		if len(drop) > 0 && w.setBusy(p.pendingKey, true) {
			w.s.wg.Go(func() {
				w.s.reassign(w.s.ctx, p.shard, p.state, drop, cause)
				w.setBusy(p.pendingKey, false)
			})
		}
	}
}

// idle returns the pending uploads that are not being reassigned.
func (w *watcher) idle() (idle []pending) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.pending {
		if !p.busy {
			p.absent = w.s.local(p.shard, p.id) == nil
			idle = append(idle, *p)
		}
	}
	return idle
}

// stuck returns the nodes from which this one is to take a pending upload away, and why.
func (w *watcher) stuck(
	p *pending, up []image.NodeID, patience time.Duration,
) (drop []image.NodeID, cause error) {
	if w.progresses(p) {
		p.progressed = time.Now()
	}
	if w.s.Log.Leader(p.shard) == w.s.Node {
		drop, cause = p.lost(up, w.s.UploadTimeout)
	}
	slot := p.state.Slot(w.s.Node)
	if p.absent && slot != nil && !slot.Stored() && time.Since(p.asked) > patience {
		drop = append(drop, w.s.Node)
		cause = image.Errorf(image.KindAborted, "upload %s did not reach node %d", p.id, w.s.Node)
	}
	return drop, cause
}

// progresses reports whether the body of a pending upload comes in on one of its nodes, and keeps that
// as its last progress. It is false before anybody needs to know.
func (w *watcher) progresses(p *pending) bool {
	if time.Since(p.progressed) < w.s.TakeoverTimeout {
		return false
	}
	receives := func(n image.NodeID) bool { return w.s.receives(n, p.shard, p.id) }
	if !slices.ContainsFunc(p.state.Holders, receives) {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := w.pending[p.pendingKey]; now != nil {
		now.progressed = time.Now()
	}
	return true
}

// setBusy marks a pending upload as being reassigned, or no longer, and reports whether it is still
// pending.
func (w *watcher) setBusy(key pendingKey, busy bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.pending[key]
	if p != nil {
		p.busy = busy
	}
	return p != nil && w.s.ctx.Err() == nil
}

// lost returns the nodes that cannot be waited for, and why.
func (p *pending) lost(up []image.NodeID, timeout time.Duration) ([]image.NodeID, error) {
	if time.Since(p.progressed) > timeout {
		return p.state.Holders, image.Errorf(image.KindAborted,
			"upload %s made no progress for %s (timeouts.upload)", p.id, timeout)
	}
	var down []image.NodeID
	for _, slot := range p.state.Storing {
		if !slot.Stored() && !slices.Contains(up, slot.Node) {
			down = append(down, slot.Node)
		}
	}
	return down, image.Errorf(image.KindAborted, "nodes %v went down before upload %s was stored", down, p.id)
}

// reload loads the shard's pending uploads, and returns those that this node should store but has no byte of.
// An upload that changes meanwhile is left to update.
func (w *watcher) reload(shard uint64) (lost []*catalog.Upload, err error) {
	changed := map[image.ID]bool{}
	w.mu.Lock()
	w.changed[shard] = changed
	w.mu.Unlock()
	var uploads []*catalog.Upload
	err = w.s.Log.View(shard, func(r catalog.Reader) (err error) {
		uploads, err = catalog.PendingUploads(r)
		return err
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.changed, shard)
	if err != nil {
		return nil, err
	}
	for _, state := range uploads {
		key := pendingKey{shard, state.ID}
		if state.Slot(w.s.Node) != nil {
			w.left[key] = true
		}
		if changed[state.ID] {
			w.clean(key)
			continue
		}
		w.track(key, state)
		if slot := state.Slot(w.s.Node); slot != nil && !slot.Stored() && w.s.local(shard, state.ID) == nil {
			lost = append(lost, state)
		}
	}
	return lost, nil
}
