package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/consensus"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
	"imgcluster/cluster/membership"
	"imgcluster/cluster/store"
)

// The membership of the cluster is the system shard's, and every node has it. From it follows what
// each node does by itself: it runs the replicas that the layouts give it, and where it leads a shard
// it brings the shard's Raft group to what the layout says, one replica after the other.

// reconcileEvery is how often that is looked at, beside every change.
const reconcileEvery = time.Second

// persistMembers keeps the members in the data directory, where they are known before Raft runs.
func (n *Node) persistMembers() {
	m := n.view.membership()
	if m.Version == 0 || m.Version == n.persisted {
		return
	}
	if err := n.writeMembers(m); err != nil {
		n.logger.Warn("members not persisted in the data directory", zap.Error(err))
		return
	}
	n.persisted = m.Version
}

func (n *Node) writeMembers(m *catalog.Membership) error {
	b, err := json.Marshal(m.Members)
	if err != nil {
		return err
	}
	return n.dir.Load().Update(func(id *store.Identity) { id.Members = b })
}

// startShards starts this node's replicas: those that it ran before, or those that it was admitted
// with, or as a founder of the cluster.
func (n *Node) startShards(ctx context.Context, c *consensus.Consensus) error {
	replicas, err := c.Stored()
	if err != nil {
		return err
	}
	if len(replicas) == 0 && n.admitted == nil && members(n.dir.Load().Identity()) != nil {
		// A start that was admitted ended before it had noted a replica. To found the cluster now would be
		// to come back as the replicas that this node has lost.
		met, err := n.handshake(ctx)
		if err == nil {
			err = n.admit(ctx, met)
		}
		if err != nil {
			return err
		}
	}
	if len(replicas) == 0 || n.admitted != nil {
		m := n.admitted
		if m == nil {
			m = n.view.founding
		}
		replicas = map[uint64]catalog.Replica{}
		for shard, l := range m.Shards {
			if r, ok := l.Of(n.self.ID); ok {
				replicas[shard] = r
			}
		}
	}
	failpoint.Here("member/before-first-replica")
	for _, shard := range slices.Sorted(maps.Keys(replicas)) {
		if err := c.StartShard(n.view.spec(shard, replicas[shard])); err != nil {
			return err
		}
	}
	return nil
}

// reconcile keeps this node's replicas and the groups that it leads as the membership says.
func (n *Node) reconcile() {
	system := system{n.log, n.view}
	groups := membership.New(membership.Options{
		Self: n.self.ID, Raft: n.log.c.Load(), System: system, Known: n.view.membership, Up: n.peers.Up,
		Serves: n.view.servedBy, Unused: system.unused, LeaderChanges: n.leads.Load, Logger: n.logger,
	})
	ticker := time.NewTicker(reconcileEvery)
	defer ticker.Stop()
	for {
		n.persistMembers()
		n.askWhetherRemoved()
		n.reconcileOwn()
		groups.Reconcile(n.ctx)
		select {
		case <-n.ctx.Done():
			return
		case <-ticker.C:
		case <-n.view.changed:
		}
	}
}

// reconcileOwn starts and stops replicas of this node.
func (n *Node) reconcileOwn() {
	c, m := n.log.c.Load(), n.view.membership()
	for _, shard := range slices.Sorted(maps.Keys(m.Shards)) {
		want, ok := m.Shards[shard].Of(n.self.ID)
		have, runs := c.Replica(shard)
		var err error
		switch {
		case m.Version > 0 && m.Member(n.self.ID) == nil:
			n.fail(errRemoved(n.self.ID))
			return
		case runs && (!ok || want.Number > have.Number):
			n.serving.set(shard, false)
			n.ingest.Forget(shard)
			failpoint.Here("member/before-drop-shard")
			err = c.DropShard(n.ctx, shard)
			failpoint.Here("member/shard-dropped")
		}
		if err == nil && ok {
			if _, runs = c.Replica(shard); !runs {
				failpoint.Here("member/before-start-shard")
				err = c.StartShard(n.view.spec(shard, want))
				failpoint.Here("member/shard-started")
				n.logger.Info("shard comes to this node", zap.Uint64("shard", shard), zap.Error(err))
			}
		}
		if err != nil {
			n.logger.Warn("shard neither started nor stopped", zap.Uint64("shard", shard), zap.Error(err))
			continue
		}
		if ok {
			n.serveCurrent(c, shard)
		}
	}
}

func errRemoved(id image.NodeID) error {
	return &RefusedError{
		Reason: fmt.Sprintf("node %d was removed from the cluster", id),
		hint:   "its data directory can be deleted; a new node needs a new ID",
	}
}

// askWhetherRemoved asks the others whether this node was removed, when it is to leave or knows of no
// leader of the system shard: the end of it is told to that shard after this node's replica was taken
// out, and a node that was down meanwhile has not even heard of the beginning.
func (n *Node) askWhetherRemoved() {
	m := n.view.membership()
	me := m.Member(n.self.ID)
	if me == nil || me.State != catalog.MemberLeaving && n.log.Leader(systemShard) != 0 {
		return
	}
	met, err := n.handshake(n.ctx)
	if err != nil {
		n.logger.Warn("peers not asked", zap.Error(err))
	}
	for _, h := range met {
		isSelf := func(x catalog.Member) bool { return x.ID == n.self.ID }
		if h.MembersVersion > m.Version && !slices.ContainsFunc(h.Members, isSelf) {
			n.fail(errRemoved(n.self.ID))
		}
	}
}

// serveCurrent serves a shard once this node has its newest state.
func (n *Node) serveCurrent(c *consensus.Consensus, shard uint64) {
	if n.serving.has(shard) || !c.CaughtUp(n.ctx, shard) {
		return
	}
	if shard == systemShard {
		n.view.reload()
	} else if err := n.ingest.Recover(n.ctx, shard); err != nil {
		n.logger.Warn("pending uploads of a shard", zap.Uint64("shard", shard), zap.Error(err))
		return
	}
	n.serving.set(shard, true)
	n.repair.Kick()
}

// system is the system shard as a Reconciler knows it.
type system struct {
	log  *replicated
	view *view
}

// Newest implements membership.System.
func (s system) Newest(ctx context.Context) (*catalog.Membership, error) {
	m, err := s.view.newest(ctx)
	if err == nil {
		s.view.update(m)
	}
	return m, err
}

// Settle implements membership.System.
func (s system) Settle(ctx context.Context, step catalog.Settle) error {
	r, err := s.log.Propose(ctx, systemShard, catalog.Command{Settle: &step})
	if err == nil && image.KindOf(r.Err()) != image.KindStale {
		err = r.Err()
	}
	return err
}

// unused reports whether nothing of a shard needs what is stored on a node.
func (s system) unused(shard uint64, l *catalog.Layout, node image.NodeID) (free bool, err error) {
	if slices.Contains(catalog.NodesOf(l.Nodes), node) || shard == systemShard {
		return true, nil
	}
	err = s.log.View(shard, func(r catalog.Reader) error {
		t, err := catalog.GetTotals(r)
		if err != nil {
			return err
		}
		pending, err := catalog.PendingUploads(r)
		stored := t.Nodes[node]
		free = (stored == nil || stored.Stored.Images == 0) &&
			!slices.ContainsFunc(pending, func(u *catalog.Upload) bool { return u.Slot(node) != nil })
		return err
	})
	return free, err
}
