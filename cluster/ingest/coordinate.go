package ingest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
	"imgcluster/cluster/placement"
)

// assignDelay is how long this node waits for another one's assignment: not at all when it is the
// one to decide.
func (s *Service) assignDelay(u *upload) time.Duration {
	to := u.req.Broadcast
	if len(to) == 0 {
		return 0
	}
	decider := s.Log.Leader(u.shard)
	if decider != 0 && !slices.Contains(to, decider) {
		decider = slices.Min(to)
	}
	if decider == s.Node {
		return 0
	}
	return s.AssignTimeout
}

// assign decides who owns the upload and proposes it. What the log says reaches u.
func (s *Service) assign(u *upload) error {
	a, err := s.decide(u)
	if err != nil {
		return err
	}
	defer func() {
		s.placing.Lock()
		delete(s.decided, a.ID)
		s.placing.Unlock()
	}()
	failpoint.Here("upload/before-assign")
	r, err := s.propose(u.ctx, u, catalog.Command{Assign: a})
	if err != nil {
		return err
	}
	failpoint.Here("upload/assigned")
	return r.Err()
}

// propose puts a command about an upload into the log; u takes over what the log then says of it.
func (s *Service) propose(ctx context.Context, u *upload, c catalog.Command) (catalog.Result, error) {
	r, err := s.Log.Propose(ctx, u.shard, c)
	if err == nil && r.Upload != nil {
		u.update(r.Upload)
	}
	return r, err
}

// decide chooses the nodes of an upload by placement, from what all shards have assigned and from
// the decisions of this node that the log does not show yet.
func (s *Service) decide(u *upload) (*catalog.Assign, error) {
	s.placing.Lock()
	defer s.placing.Unlock()
	loads, others, err := s.loads()
	if err != nil {
		return nil, err
	}
	live, room := s.Current(u.shard), s.Room()
	var candidates []placement.Candidate
	for _, n := range s.Members(u.shard) {
		sentTo := len(u.req.Broadcast) == 0 || slices.Contains(u.req.Broadcast, n)
		if slices.Contains(live, n) && slices.Contains(room, n) && sentTo {
			c := placement.Candidate{ID: n}
			if l := loads[n]; l != nil {
				c.Owned, c.Stored = placement.Load(l.Assigned), placement.Load(l.Storing)
			}
			if l := others[n]; l != nil {
				c.Others = placement.Load(l.Assigned)
			}
			candidates = append(candidates, c)
		}
	}
	if err := s.enough(u, len(candidates), room); err != nil {
		return nil, err
	}
	order, err := placement.Place(u.req.User, u.req.Name, u.req.Size, candidates, s.Replicas)
	if err != nil {
		return nil, err
	}
	// Of a relayed upload this node has the bytes, and sends them on to whoever is to store them.
	holders := order
	if len(u.req.Broadcast) == 0 && !slices.Contains(holders, s.Node) {
		holders = append(holders, s.Node)
	}
	a := &catalog.Assign{
		ID: u.req.ID, User: u.req.User, Name: u.req.Name, Bytes: u.req.Size, Type: u.req.Type, If: u.req.If,
		Holders: holders, Replicas: s.Replicas, Created: time.Now().UTC().Truncate(time.Millisecond),
	}
	s.remember(a)
	return a, nil
}

// enough refuses an upload that would get fewer copies than the live nodes allow. That a disk is full
// is no reason to keep fewer: it does not end by itself, as the absence of a node mostly does.
func (s *Service) enough(u *upload, candidates int, room []image.NodeID) error {
	need, fit, lives, live := s.needed(u.shard), 0, 0, s.Live()
	for _, n := range s.Members(u.shard) {
		if slices.Contains(live, n) {
			lives++
			if slices.Contains(room, n) {
				fit++
			}
		}
	}
	if lives >= need && fit < need {
		return image.Errorf(image.KindDiskFull, "%d of the %d nodes that are up have room for more images, %d are needed", fit, lives, need).
			WithHint("remove images, or free space on the data disks of the nodes that imgcluster status calls full")
	}
	if candidates < s.MinReplicas {
		return image.Errorf(image.KindNoQuorum, "%d of the %d nodes needed are up", candidates, s.MinReplicas).
			WithHint("start the other nodes").WithRetry(time.Second)
	}
	named := 0
	for _, n := range s.Members(u.shard) {
		if slices.Contains(u.req.Broadcast, n) {
			named++
		}
	}
	switch {
	case candidates >= need:
		return nil
	case len(u.req.Broadcast) > 0 && named < need:
		return image.Errorf(image.KindMisplaced, "Imgcluster-Broadcast names %d nodes of the shard, %d are needed", named, need).
			WithHint("broadcast to all nodes that GET /v1/cluster lists for the shard, or leave the header out")
	default:
		return image.Errorf(image.KindNoQuorum, "%d of the nodes that the upload is sent to are up, have the newest state of the shard and room, %d are needed", candidates, need).
			WithHint("wait a moment; broadcast to all nodes that GET /v1/cluster lists for the shard").WithRetry(time.Second)
	}
}

// needed is how many copies an upload must have now: replicas, or what the live nodes allow.
func (s *Service) needed(shard uint64) int {
	n, live := 0, s.Live()
	for _, m := range s.Members(shard) {
		if slices.Contains(live, m) {
			n++
		}
	}
	return max(s.MinReplicas, min(s.Replicas, n))
}

// remember keeps a decision until the log shows it. Held: placing.
func (s *Service) remember(a *catalog.Assign) {
	d := &catalog.Upload{ID: a.ID, Bytes: a.Bytes, Owner: a.Holders[0]}
	for _, n := range a.Holders[:min(a.Replicas, len(a.Holders))] {
		d.Storing = append(d.Storing, catalog.Slot{Node: n})
	}
	s.decided[a.ID] = d
}

// loads adds up the work that was given to each node, in all and in the shards that other nodes
// lead, whose newest decisions may not be here yet. Held: placing.
func (s *Service) loads() (all, others map[image.NodeID]*catalog.NodeTotals, err error) {
	sum := &catalog.Totals{Nodes: map[image.NodeID]*catalog.NodeTotals{}}
	theirs := &catalog.Totals{Nodes: map[image.NodeID]*catalog.NodeTotals{}}
	for _, shard := range s.Shards() {
		t, err := catalog.ViewTotals(s.Log.View, shard)
		if err != nil {
			return nil, nil, err
		}
		sum.Add(t)
		if s.Log.Leader(shard) != s.Node {
			theirs.Add(t)
		}
	}
	for _, d := range s.decided {
		sum.Reserve(d, +1)
	}
	return sum.Nodes, theirs.Nodes, nil
}

// takeOver takes an upload away from a node that has not stored it in time, when this node holds
// all bytes and was not asked to store them, and returns when to look again. A node that still receives the
// body has its time from the end of that.
func (p *part) takeOver(state *catalog.Upload) time.Duration {
	s, u := p.s, p.u
	again := s.TakeoverTimeout
	if state.Finished() || state.Slot(s.Node) != nil || !slices.Contains(state.Holders, s.Node) || !u.spool.holds() {
		return again
	}
	for _, slot := range state.Storing {
		switch {
		case slot.Stored:
			continue
		case s.receives(slot.Node, u.shard, state.ID):
			p.moving[slot.Node] = time.Now()
			again = min(again, s.AssignTimeout)
			continue
		case time.Since(p.moving[slot.Node]) < s.TakeoverTimeout:
			again = min(again, s.AssignTimeout)
			continue
		}
		cause := image.Errorf(image.KindAborted, "node %d did not store upload %s in time", slot.Node, state.ID)
		s.reassign(u.ctx, u.shard, state, []image.NodeID{slot.Node}, cause)
		return again
	}
	return again
}

// reassign proposes to take the parts of some nodes in an upload away from them. It tells whether
// somebody else's decision came first.
func (s *Service) reassign(ctx context.Context, shard uint64, state *catalog.Upload, drop []image.NodeID, cause error) (stale bool) {
	kind := image.KindOf(cause)
	if kind == image.KindInternal {
		cause = fmt.Errorf("no node could store upload %s; see the nodes' logs", state.ID)
		kind = image.KindAborted
	}
	s.mu.Lock()
	u := s.here(shard, state.ID) // the answer is not for one that is sent again meanwhile
	s.mu.Unlock()
	failpoint.Here("upload/before-reassign")
	r, err := s.Log.Propose(ctx, shard, catalog.Command{Reassign: &catalog.Reassign{
		ID: state.ID, Epoch: state.Epoch, Drop: drop, Min: s.needed(shard), Cause: kind, Text: cause.Error(),
	}})
	if err != nil {
		s.Logger.Warn("reassignment not proposed", zap.Stringer("upload", state.ID), zap.Error(err))
		return false
	}
	failpoint.Here("upload/reassigned")
	if u != nil && r.Upload != nil {
		u.update(r.Upload)
	}
	if image.KindOf(r.Err()) == image.KindStale {
		return true
	}
	if r.Upload != nil {
		s.Logger.Info("upload reassigned", zap.Stringer("upload", state.ID), zap.Any("dropped", drop),
			zap.Uint32("epoch", r.Upload.Epoch), zap.String("state", string(r.Upload.State)), zap.String("cause", cause.Error()))
	}
	return false
}

// pendingKey names an upload that the log has not decided.
type pendingKey struct {
	shard uint64
	id    image.ID
}

// watched is an upload that the log has not decided, with the time since which this node knows it.
type watched struct {
	pendingKey
	state  *catalog.Upload
	since  time.Time // likewise, or since its body was last seen to come in
	asked  time.Time // since this node is to store it, as it is to now
	busy   bool      // a reassignment is being proposed
	absent bool      // the upload is not on its way here
}

// watchEvery is the period in which the leader looks over the pending uploads of its shards, beside
// every change of who is alive.
const watchEvery = 500 * time.Millisecond

// Kick makes the service look at once for uploads that a node left behind. It does not block.
func (s *Service) Kick() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

func (s *Service) watch() {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-ticker.C:
		case <-s.kick:
		}
		s.rescue()
	}
}

// track remembers a pending upload. Held: mu.
func (s *Service) track(shard uint64, state *catalog.Upload) {
	key, now := pendingKey{shard, state.ID}, time.Now()
	w := s.pending[key]
	if w == nil {
		s.pending[key] = &watched{pendingKey: key, state: state, since: now, asked: now}
		return
	}
	before, after := w.state.Slot(s.Node), state.Slot(s.Node)
	if after != nil && (before == nil || before.Epoch != after.Epoch) {
		w.asked = now
	}
	w.state = state
}

// rescue reassigns the uploads that cannot go on as they are: as the leader, those whose storing
// nodes are gone or that take too long; on any node, those of which it should store a copy but
// never got a byte: before a standby, which cannot know, takes over from the wrong one.
func (s *Service) rescue() {
	up := s.Up()
	var idle []watched
	s.mu.Lock()
	patience := s.TakeoverTimeout / 2
	if s.draining() { // what is not here now will not come
		patience = 0
	}
	for _, w := range s.pending {
		if !w.busy {
			w.absent = s.here(w.shard, w.id) == nil
			idle = append(idle, *w)
		}
	}
	s.mu.Unlock()
	for _, w := range idle {
		var drop []image.NodeID
		var cause error
		if s.progresses(&w) {
			w.since = time.Now()
		}
		if s.Log.Leader(w.shard) == s.Node {
			drop, cause = w.lost(up, s.UploadTimeout)
		}
		if slot := w.state.Slot(s.Node); w.absent && slot != nil && !slot.Stored && time.Since(w.asked) > patience {
			drop = append(drop, s.Node)
			cause = image.Errorf(image.KindAborted, "upload %s did not reach node %d", w.state.ID, s.Node)
		}
		if len(drop) > 0 && s.busy(w.pendingKey, true) {
			s.wg.Go(func() {
				s.reassign(s.ctx, w.shard, w.state, drop, cause)
				s.busy(w.pendingKey, false)
			})
		}
	}
}

// progresses reports whether the body of a pending upload comes in on one of its nodes, and notes it.
func (s *Service) progresses(w *watched) bool {
	if time.Since(w.since) < s.TakeoverTimeout {
		return false // no need to know yet
	}
	if !slices.ContainsFunc(w.state.Holders, func(n image.NodeID) bool { return s.receives(n, w.shard, w.id) }) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.pending[w.pendingKey]; now != nil {
		now.since = time.Now()
	}
	return true
}

// busy marks a pending upload as being reassigned, or no longer, and tells whether it is still
// pending.
func (s *Service) busy(key pendingKey, is bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.pending[key]
	if w != nil {
		w.busy = is
	}
	return w != nil && !s.closed
}

// lost returns the nodes that cannot be waited for, and why.
func (w *watched) lost(up []image.NodeID, timeout time.Duration) ([]image.NodeID, error) {
	if time.Since(w.since) > timeout {
		return w.state.Holders, image.Errorf(image.KindAborted, "upload %s made no progress for %s (timeouts.upload)", w.state.ID, timeout)
	}
	var gone []image.NodeID
	for _, slot := range w.state.Storing {
		if !slot.Stored && !slices.Contains(up, slot.Node) {
			gone = append(gone, slot.Node)
		}
	}
	return gone, image.Errorf(image.KindAborted, "nodes %v went away before upload %s was stored", gone, w.state.ID)
}

// Recover takes up the shards' pending uploads after a start or a snapshot: it watches over them,
// and gives up the parts that an earlier process of this node had in them.
func (s *Service) Recover(ctx context.Context, shard uint64) error {
	lost, err := s.takeUp(shard)
	for _, state := range lost {
		cause := image.Errorf(image.KindAborted, "node %d restarted before it stored upload %s", s.Node, state.ID)
		s.reassign(ctx, shard, state, []image.NodeID{s.Node}, cause)
	}
	return err
}

// takeUp watches over the shard's pending uploads, and returns those of which this node should store a
// copy but has no byte. Of an upload that changes meanwhile it goes by the change, not by what was before.
func (s *Service) takeUp(shard uint64) (lost []*catalog.Upload, err error) {
	changed := map[image.ID]bool{}
	s.mu.Lock()
	s.changed[shard] = changed
	s.mu.Unlock()
	var pending []*catalog.Upload
	err = s.Log.View(shard, func(r catalog.Reader) (err error) {
		pending, err = catalog.PendingUploads(r)
		return err
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.changed, shard)
	if err != nil {
		return nil, err
	}
	for _, state := range pending {
		if changed[state.ID] {
			continue
		}
		s.track(shard, state)
		if slot := state.Slot(s.Node); s.here(shard, state.ID) == nil && slot != nil && !slot.Stored {
			lost = append(lost, state)
		}
	}
	return lost, nil
}
