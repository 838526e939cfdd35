package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/consensus"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
	"imgcluster/cluster/membership"
	"imgcluster/cluster/store"
	"imgcluster/cluster/wire"
	"imgcluster/config"
)

// The membership of the cluster is the system shard's, and every node has it. From it follows what
// each node does by itself: it runs the replicas that the layouts give it, and where it leads a shard
// it brings the shard's Raft group to what the layout says, one replica after the other.

// reconcileEvery is how often that is looked at, beside every change.
const reconcileEvery = time.Second

// configured is the cluster before the first Join: what the configuration says.
func (n *Node) configured() *catalog.Membership {
	return catalog.Found(systemShard, &catalog.Join{Members: n.founders(), Shards: n.shards})
}

// apiAddresses are the members' API addresses, host:port.
func apiAddresses(m *catalog.Membership) map[image.NodeID]string {
	addr := make(map[image.NodeID]string, len(m.Members))
	for _, x := range m.Members {
		addr[x.ID] = x.API
	}
	return addr
}

// founders are the nodes of the configuration.
func (n *Node) founders() []catalog.Member {
	members := make([]catalog.Member, len(n.cfg.Cluster.Nodes))
	for i, m := range n.cfg.Cluster.Nodes {
		members[i] = catalog.Member{ID: m.ID, API: m.APIAddr(), Raft: m.RaftAddr()}
	}
	return members
}

// membership is the newest that this node knows. It is not modified.
func (n *Node) membership() *catalog.Membership { return n.known.Load() }

// updateMembership takes a newer membership. It does not block.
func (n *Node) updateMembership(m *catalog.Membership) {
	for {
		old := n.known.Load()
		if m.Version <= old.Version {
			return
		}
		if n.known.CompareAndSwap(old, m) {
			break
		}
	}
	n.peers.Update(apiAddresses(m))
	n.kickReconcile()
}

func (n *Node) kickReconcile() {
	select {
	case n.reconcileKick <- struct{}{}:
	default:
	}
}

// reloadMembership reads the membership from this node's state of the system shard.
func (n *Node) reloadMembership() {
	err := n.log.View(systemShard, func(r catalog.Reader) error {
		m, err := catalog.GetMembership(r)
		if m != nil {
			n.updateMembership(m)
		}
		return err
	})
	if err != nil {
		n.logger.Warn("membership not read", zap.Error(err))
	}
}

// persistMembers keeps the members in the data directory, where they are known before Raft runs.
func (n *Node) persistMembers() {
	m := n.membership()
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

// members are the nodes that hold a shard.
func (n *Node) members(shard uint64) []image.NodeID {
	l := n.membership().Shards[shard]
	if l == nil {
		return nil
	}
	return catalog.NodesOf(l.Nodes)
}

// candidates returns the nodes that may lead each shard, the one that should first.
func (n *Node) candidates() []consensus.Candidates {
	m := n.membership()
	all := make([]consensus.Candidates, 0, len(m.Shards))
	for _, shard := range slices.Sorted(maps.Keys(m.Shards)) {
		nodes := catalog.NodesOf(m.Shards[shard].Nodes)
		all = append(all, consensus.Candidates{Shard: shard, Nodes: nodes})
	}
	return all
}

// live lists the nodes that take on work: members that are up and drain neither for an end of their
// process nor for good.
func (n *Node) live() []image.NodeID {
	m := n.membership()
	return slices.DeleteFunc(n.peers.Live(), func(id image.NodeID) bool {
		x := m.Member(id)
		return x == nil || x.State != catalog.MemberActive
	})
}

// liveOn lists those of them that have the newest state of a shard.
func (n *Node) liveOn(shard uint64) []image.NodeID {
	return slices.DeleteFunc(n.live(), func(id image.NodeID) bool { return !n.servedBy(id, shard) })
}

// roomOn lists those of them whose disks take more images.
func (n *Node) roomOn(shard uint64) []image.NodeID {
	room := n.peers.Room()
	return slices.DeleteFunc(n.liveOn(shard),
		func(id image.NodeID) bool { return !slices.Contains(room, id) })
}

// leaving lists the nodes whose copies must go to others: that drain or leave, or have been down for
// long.
func (n *Node) leaving() []image.NodeID {
	gone := n.peers.DownFor(n.cfg.Repair.Delay)
	for _, x := range n.membership().Members {
		if x.State != catalog.MemberActive && !slices.Contains(gone, x.ID) {
			gone = append(gone, x.ID)
		}
	}
	return gone
}

// servedBy reports whether a node says that it serves a shard.
func (n *Node) servedBy(id image.NodeID, shard uint64) bool {
	if id == n.self.ID {
		return n.serving.has(shard)
	}
	return slices.Contains(n.peers.Serves(id), shard)
}

// spec is a replica of this node as consensus starts it. A founding one, number 0, starts with the
// members that the configuration had then.
func (n *Node) spec(shard uint64, r catalog.Replica) consensus.Shard {
	s := consensus.Shard{ID: shard, Replica: r, Apply: applier(shard)}
	if r.Number > 0 {
		return s
	}
	founding := n.configured()
	s.Members = map[image.NodeID]string{}
	for _, r := range founding.Shards[shard].Nodes {
		s.Members[r.Node] = founding.Member(r.Node).Raft
	}
	return s
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
			m = n.configured()
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
		if err := c.StartShard(n.spec(shard, replicas[shard])); err != nil {
			return err
		}
	}
	return nil
}

// reconcile keeps this node's replicas and the groups that it leads as the membership says.
func (n *Node) reconcile() {
	groups := n.newReconciler()
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
		case <-n.reconcileKick:
		}
	}
}

// awaited reports whether this node is ready only with the newest state of a shard: one that it is about to
// leave goes on without it, and when its replica was lost there never comes another.
func (n *Node) awaited(shard uint64) bool {
	l := n.membership().Shards[shard]
	return l == nil || slices.Contains(catalog.NodesOf(slices.Concat(l.Nodes, l.Next)), n.self.ID)
}

// reconcileOwn starts and stops replicas of this node.
func (n *Node) reconcileOwn() {
	c, m := n.log.c.Load(), n.membership()
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
				err = c.StartShard(n.spec(shard, want))
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
	m := n.membership()
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
		n.reloadMembership()
	} else if err := n.ingest.Recover(n.ctx, shard); err != nil {
		n.logger.Warn("pending uploads of a shard", zap.Uint64("shard", shard), zap.Error(err))
		return
	}
	n.serving.set(shard, true)
	n.repair.Kick()
}

// readMembership reads the newest membership.
func (n *Node) readMembership(ctx context.Context) (m *catalog.Membership, err error) {
	err = n.log.Read(ctx, systemShard, func(r catalog.Reader) (err error) {
		m, err = catalog.GetMembership(r)
		return err
	})
	if err == nil && m == nil {
		m = n.configured()
	}
	return m, err
}

// system is the system shard as a Reconciler knows it.
type system struct{ n *Node }

// Newest implements membership.System.
func (s system) Newest(ctx context.Context) (*catalog.Membership, error) {
	m, err := s.n.readMembership(ctx)
	if err == nil {
		s.n.updateMembership(m)
	}
	return m, err
}

// Settle implements membership.System.
func (s system) Settle(ctx context.Context, step catalog.Settle) error {
	r, err := s.n.log.Propose(ctx, systemShard, catalog.Command{Settle: &step})
	if err == nil && image.KindOf(r.Err()) != image.KindStale {
		err = r.Err()
	}
	return err
}

func (n *Node) newReconciler() *membership.Reconciler {
	return membership.New(membership.Options{
		Self: n.self.ID, Raft: n.log.c.Load(), System: system{n}, Known: n.membership, Up: n.peers.Up,
		Serves: n.servedBy, Unused: n.unused, LeaderChanges: n.leads.Load, Logger: n.logger,
	})
}

// unused reports whether nothing of a shard needs what is stored on a node.
func (n *Node) unused(shard uint64, l *catalog.Layout, node image.NodeID) (free bool, err error) {
	if slices.Contains(catalog.NodesOf(l.Nodes), node) || shard == systemShard {
		return true, nil
	}
	err = n.log.View(shard, func(r catalog.Reader) error {
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

// Members implements api.Node.
func (n *Node) Members(ctx context.Context) ([]wire.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timeouts.Read)
	defer cancel()
	m, err := n.readMembership(ctx)
	if err != nil {
		return nil, err
	}
	up := n.peers.Up()
	status := n.Cluster()
	list := make([]wire.Member, len(m.Members))
	for i, x := range m.Members {
		list[i] = wire.Member{
			ID: x.ID, API: x.API, Raft: x.Raft, State: string(x.State),
			Up: slices.Contains(up, x.ID),
		}
		for shard, l := range m.Shards {
			if _, on := l.Of(x.ID); !on || shard == systemShard {
				continue
			}
			list[i].Shards++
			if l.Next != nil || slices.Contains(catalog.NodesOf(l.Old), x.ID) {
				list[i].Moving++
			}
		}
		for _, s := range status.Nodes {
			if s.ID == x.ID {
				list[i].Images, list[i].Leads = s.StoredImages, s.LeaderOf
			}
		}
	}
	return list, nil
}

// ChangeMember implements api.Node.
func (n *Node) ChangeMember(ctx context.Context, c wire.MemberChange) error {
	var cmd catalog.Command
	switch c.Op {
	case wire.MemberAdd:
		if err := n.checkNew(c); err != nil {
			return err
		}
		cmd.AddMember = &catalog.AddMember{ID: c.ID, API: c.API, Raft: c.Raft}
	case wire.MemberDrain, wire.MemberResume:
		cmd.DrainMember = &catalog.DrainMember{
			ID: c.ID, Drain: c.Op == wire.MemberDrain,
			Least: n.cfg.Cluster.Replicas,
		}
	case wire.MemberRemove:
		cmd.RemoveMember = &catalog.RemoveMember{ID: c.ID, Least: n.cfg.Cluster.Replicas}
	default:
		return image.Errorf(image.KindInvalid, "unknown change %.20q", c.Op).
			WithHint("op is add, drain, resume or remove")
	}
	r, err := n.log.Propose(ctx, systemShard, cmd)
	if err == nil {
		err = r.Err()
	}
	return err
}

// checkNew holds a new member's addresses to the rules of the configuration, which it is to be listed in.
func (n *Node) checkNew(c wire.MemberChange) error {
	const hint = "give the API's and Raft's address as HOST:PORT, with the same host"
	host, port, err := net.SplitHostPort(c.API)
	x := config.Node{ID: c.ID, Host: host}
	if err == nil {
		x.APIPort, err = strconv.Atoi(port)
	}
	if err == nil {
		_, port, err = net.SplitHostPort(c.Raft)
	}
	if err == nil {
		x.RaftPort, err = strconv.Atoi(port)
	}
	if err != nil || x.APIAddr() != c.API || x.RaftAddr() != c.Raft {
		return image.Errorf(image.KindInvalid, "%.100q and %.100q are not two addresses of one host",
			c.API, c.Raft).WithHint(hint)
	}
	if wrong := config.CheckNode(x); wrong != nil {
		return image.Errorf(image.KindInvalid, "%s", wrong[0]).WithHint(wrong[0].Hint)
	}
	for _, m := range n.membership().Members {
		for _, theirs := range []string{m.API, m.Raft} {
			if m.ID != c.ID && (config.SameAddress(theirs, c.API) || config.SameAddress(theirs, c.Raft)) {
				return image.Errorf(image.KindInvalid, "node %d has the address %s", m.ID, theirs).
					WithHint("choose other ports, or remove that member first")
			}
		}
	}
	return nil
}

// Join implements api.Peers: a node that starts with an empty data directory asks to be taken in.
func (n *Node) Join(ctx context.Context, theirs []byte) ([]byte, error) {
	var j catalog.Join
	if err := json.Unmarshal(theirs, &j); err != nil {
		return nil, image.Errorf(image.KindInvalid, "malformed join: %w", err)
	}
	r, err := n.log.Propose(ctx, systemShard, catalog.Command{Join: &j})
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		return nil, err
	}
	return marshal(r.Members)
}
