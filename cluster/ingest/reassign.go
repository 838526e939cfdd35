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
)

// reassign proposes to take the slots of some nodes in an upload away from them. It reports whether
// somebody else's decision came first.
func (s *Service) reassign(
	ctx context.Context, shard uint64, state *catalog.Upload, drop []image.NodeID, cause error,
) (stale bool) {
	kind := image.KindOf(cause)
	if kind == image.KindInternal {
		cause = fmt.Errorf("no node could store upload %s; see the nodes' logs", state.ID)
		kind = image.KindAborted
	}
	u := s.local(shard, state.ID) // the answer is not for one that is sent again meanwhile
	failpoint.Here("upload/before-reassign")
	r, err := s.Log.Propose(ctx, shard, catalog.Command{Reassign: &catalog.Reassign{
		ID: state.ID, Epoch: state.Epoch, Drop: drop,
		Min: s.placer.needed(shard), Cause: kind, Text: cause.Error(),
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
			zap.Uint32("epoch", r.Upload.Epoch), zap.String("state", string(r.Upload.State)),
			zap.String("cause", cause.Error()))
	}
	return false
}

// takeOver takes an upload away from a node that has not stored it in time, when this node holds
// all bytes and was not asked to store them, and returns when to look again. A node that still receives
// the body has its time from the end of that.
func (t *task) takeOver(state *catalog.Upload) (next time.Duration) {
	s, u := t.s, t.u
	next = s.TakeoverTimeout
	standby := state.Slot(s.Node) == nil && slices.Contains(state.Holders, s.Node)
	if state.Finished() || !standby || !u.spool.holds() {
		return next
	}
	for _, slot := range state.Storing {
		if slot.Stored() {
			continue
		}
		if s.receives(slot.Node, u.shard, state.ID) {
			t.moving[slot.Node] = time.Now()
		}
		if time.Since(t.moving[slot.Node]) < s.TakeoverTimeout {
			next = min(next, s.AssignTimeout)
			continue
		}
		cause := image.Errorf(image.KindAborted,
			"node %d did not store upload %s in time", slot.Node, state.ID)
		s.reassign(u.ctx, u.shard, state, []image.NodeID{slot.Node}, cause)
		return next
	}
	return next
}

// giveUpTries bounds how often a node tries to give up its slot while others do too.
const giveUpTries = 8

// giveUp takes a node's slot in an upload away from it because of err. A body that is not what the
// client promised ends the upload on all nodes.
//
// When several nodes give up at once the log takes one of them, and the others, whose epoch is past
// then, decide again from what that left.
func (t *task) giveUp(node image.NodeID, err error) {
	s, u := t.s, t.u
	kind := image.KindOf(err)
	all := kind == image.KindDigest || kind == image.KindConflict
	s.Logger.Warn("node gives up its copy of an upload", zap.Stringer("upload", u.req.ID),
		zap.Uint32("of_node", uint32(node)), zap.Error(err))
	epoch := uint32(0) // of the slot that is given up
	for range giveUpTries {
		state := u.latest()
		slot := state.Slot(node)
		over := slot == nil || slot.Stored() || epoch != 0 && slot.Epoch != epoch
		if state.Finished() || !all && over {
			return
		}
		drop := []image.NodeID{node}
		if all {
			drop = state.Holders
		}
		if slot != nil {
			epoch = slot.Epoch
		}
		if !s.reassign(u.ctx, u.shard, state, drop, err) {
			return
		}
	}
}
