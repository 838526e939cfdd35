package cluster

import (
	"context"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/consensus"
	"imgcluster/cluster/image"
	"imgcluster/cluster/peer"
	"imgcluster/config"
)

// view is what this node knows of the cluster: who its members are, which of them are up, and what they
// serve. It is safe for concurrent use.
type view struct {
	self    image.NodeID
	initial *catalog.Membership // before the first Join: what the configuration says
	log     *shardLogs
	peers   *peer.Set
	serving *serving
	delay   time.Duration // after which the copies of a node that is down are made elsewhere
	logger  *zap.Logger

	known atomic.Pointer[catalog.Membership]
	// updated is called with each newer membership; it does not block.
	updated func()
	changed chan struct{} // capacity 1: the membership or a leader has changed

	admitted bool // at this start; not changed once Raft runs
}

func newView(cfg *config.Config, self image.NodeID, log *shardLogs, s *serving, logger *zap.Logger) *view {
	v := &view{
		self:    self,
		log:     log,
		serving: s,
		delay:   cfg.Repair.Delay,
		logger:  logger,
		updated: func() {},
		changed: make(chan struct{}, 1),
	}
	join := initialJoin(cfg)
	v.initial = catalog.InitialMembership(systemShard, &join)
	v.known.Store(v.initial)
	return v
}

// initialJoin is what a node bootstraps the cluster with: name, nodes and data shards of the configuration.
func initialJoin(cfg *config.Config) catalog.Join {
	members := make([]catalog.Member, len(cfg.Cluster.Nodes))
	for i, m := range cfg.Cluster.Nodes {
		members[i] = catalog.Member{ID: m.ID, API: m.APIAddr(), Raft: m.RaftAddr()}
	}
	return catalog.Join{Cluster: cfg.Cluster.Name, Members: members, Shards: dataShards(cfg.Cluster.DataShards)}
}

// addresses are the members' addresses.
func addresses(m *catalog.Membership) map[image.NodeID]peer.Addresses {
	all := make(map[image.NodeID]peer.Addresses, len(m.Members))
	for _, x := range m.Members {
		all[x.ID] = peer.Addresses{API: x.API, Raft: x.Raft}
	}
	return all
}

// raftAddress returns a member's Raft address, host:port; empty for a node that is none.
func (v *view) raftAddress(id image.NodeID) string {
	if m := v.membership().Member(id); m != nil {
		return m.Raft
	}
	return ""
}

// raftAddresses are the members' Raft addresses, host:port.
func (v *view) raftAddresses() map[image.NodeID]string {
	m := v.membership()
	all := make(map[image.NodeID]string, len(m.Members))
	for _, x := range m.Members {
		all[x.ID] = x.Raft
	}
	return all
}

// membership is the newest that this node knows. It is not modified.
func (v *view) membership() *catalog.Membership { return v.known.Load() }

// update takes a newer membership. It does not block.
func (v *view) update(m *catalog.Membership) {
	for {
		old := v.known.Load()
		if m.Version <= old.Version {
			return
		}
		if v.known.CompareAndSwap(old, m) {
			break
		}
	}
	v.peers.Update(addresses(m))
	v.updated()
	v.kick()
}

// kick wakes replicas.reconcile. It does not block.
func (v *view) kick() {
	select {
	case v.changed <- struct{}{}:
	default:
	}
}

// reload reads the membership from this node's state of the system shard.
func (v *view) reload() {
	err := v.log.View(systemShard, func(r catalog.Reader) error {
		m, err := catalog.GetMembership(r)
		if m != nil {
			v.update(m)
		}
		return err
	})
	if err != nil {
		v.logger.Warn("membership not read", zap.Error(err))
	}
}

// admit adopts the membership with which the peers admitted this node at this start; nil means that it was a
// member before.
func (v *view) admit(m *catalog.Membership) {
	if m == nil {
		return
	}
	v.admitted = true
	v.known.Store(m)
	v.peers.Update(addresses(m))
	v.updated()
}

// newest reads the membership with all changes made before.
func (v *view) newest(ctx context.Context) (m *catalog.Membership, err error) {
	err = v.log.Read(ctx, systemShard, func(r catalog.Reader) (err error) {
		m, err = catalog.GetMembership(r)
		return err
	})
	if err == nil && m == nil {
		m = v.initial
	}
	return m, err
}

// nodesOf lists the nodes that hold a shard.
func (v *view) nodesOf(shard uint64) []image.NodeID {
	l := v.membership().Shards[shard]
	if l == nil {
		return nil
	}
	return catalog.NodesOf(l.Nodes)
}

// candidates returns the nodes that may lead each shard, the one that should first.
func (v *view) candidates() []consensus.Candidates {
	m := v.membership()
	all := make([]consensus.Candidates, 0, len(m.Shards))
	for _, shard := range slices.Sorted(maps.Keys(m.Shards)) {
		nodes := catalog.NodesOf(m.Shards[shard].Nodes)
		all = append(all, consensus.Candidates{Shard: shard, Nodes: nodes})
	}
	return all
}

// live lists the nodes that take on work: members that are up, and are neither shutting down nor draining.
func (v *view) live() []image.NodeID {
	m := v.membership()
	return slices.DeleteFunc(v.peers.Live(), func(id image.NodeID) bool {
		x := m.Member(id)
		return x == nil || x.State != catalog.MemberActive
	})
}

// liveOn lists those of them that have the newest state of a shard.
func (v *view) liveOn(shard uint64) []image.NodeID {
	return slices.DeleteFunc(v.live(), func(id image.NodeID) bool { return !v.servedBy(id, shard) })
}

// roomOn lists those of them whose disks take more images.
func (v *view) roomOn(shard uint64) []image.NodeID {
	room := v.peers.Room()
	return slices.DeleteFunc(v.liveOn(shard), func(id image.NodeID) bool { return !slices.Contains(room, id) })
}

// leaving lists the nodes whose copies move to others: those that drain or leave, or have been down for
// repair.delay.
func (v *view) leaving() []image.NodeID {
	leaving := v.peers.DownFor(v.delay)
	for _, x := range v.membership().Members {
		if x.State != catalog.MemberActive && !slices.Contains(leaving, x.ID) {
			leaving = append(leaving, x.ID)
		}
	}
	return leaving
}

// servedBy reports whether a node says that it serves a shard, and is the one that the cluster knows.
func (v *view) servedBy(id image.NodeID, shard uint64) bool {
	if id == v.self {
		return v.serving.has(shard)
	}
	x := v.membership().Member(id)
	return x != nil && slices.Contains(v.peers.Serves(id, x.Incarnation), shard)
}

// servesAny reports whether a node serves shards with the data directory that a membership has of it.
func (v *view) servesAny(m *catalog.Membership, id image.NodeID) bool {
	return id == v.self || len(v.peers.Serves(id, m.Member(id).Incarnation)) > 0
}

// held lists the data shards and the system shard that the layout gives this node, in order. Those that it is
// still to get do not count.
func (v *view) held() (shards []uint64) {
	for shard, l := range v.membership().Shards {
		if slices.Contains(catalog.NodesOf(l.Nodes), v.self) {
			shards = append(shards, shard)
		}
	}
	slices.Sort(shards)
	return shards
}

// peersServe reports whether all peers that are up serve their shards.
func (v *view) peersServe() bool {
	up := v.peers.Up()
	for shard, l := range v.membership().Shards {
		for _, r := range l.Nodes {
			if slices.Contains(up, r.Node) && !v.servedBy(r.Node, shard) {
				return false
			}
		}
	}
	return true
}

// awaited reports whether this node must catch up with a shard before it is ready. One that is only moving
// away does not count: its replica here, once lost, is not added again and would never catch up.
func (v *view) awaited(shard uint64) bool {
	l := v.membership().Shards[shard]
	return l == nil || slices.Contains(catalog.NodesOf(slices.Concat(l.Nodes, l.Next)), v.self)
}

// spec is a replica of this node as consensus starts it. One that bootstraps its shard, number 0, starts with
// the nodes of the configuration.
func (v *view) spec(shard uint64, r catalog.Replica) consensus.Shard {
	s := consensus.Shard{ID: shard, Replica: r, Apply: applier(shard)}
	if r.Number > 0 {
		return s
	}
	s.Members = map[image.NodeID]string{}
	for _, r := range v.initial.Shards[shard].Nodes {
		s.Members[r.Node] = v.initial.Member(r.Node).Raft
	}
	return s
}
