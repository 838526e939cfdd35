package consensus

import (
	"slices"
	"sync/atomic"

	"github.com/lni/dragonboat/v4/raftio"
	"go.uber.org/zap"

	"imgcluster/cluster/image"
)

// leadership is who leads one shard, as far as this node was told.
type leadership struct {
	now atomic.Pointer[raftio.LeaderInfo]
}

// Leader returns the shard's leader and its term from memory; ok is false when there is none. A
// leader that just died is named until the next election, so this is a hint and no proof.
func (c *Consensus) Leader(shard uint64) (node image.NodeID, term uint64, ok bool) {
	l := c.leaders[shard]
	if l == nil {
		return 0, 0, false
	}
	info := l.now.Load()
	if info == nil || info.LeaderID == raftio.NoLeader {
		return 0, 0, false
	}
	return image.NodeID(info.LeaderID), info.Term, true
}

// LeaderOf reports whether this node leads the shard, with the limits of Leader.
func (c *Consensus) LeaderOf(shard uint64) bool {
	node, _, ok := c.Leader(shard)
	return ok && node == c.opts.NodeID
}

// Ready reports whether every shard has a leader.
func (c *Consensus) Ready() bool {
	for shard := range c.leaders {
		if _, _, ok := c.Leader(shard); !ok {
			return false
		}
	}
	return true
}

// Shards returns the state of every shard on this node, by ID.
func (c *Consensus) Shards() []image.ShardStatus {
	list := make([]image.ShardStatus, 0, len(c.opts.Shards))
	for _, s := range c.opts.Shards {
		leader, term, _ := c.Leader(s.ID)
		list = append(list, image.ShardStatus{ID: s.ID, Leader: leader, Term: term, Nodes: members(s)})
	}
	return list
}

// members lists the shard's nodes by ID.
func members(s Shard) []image.NodeID {
	ids := make([]image.NodeID, 0, len(s.Members))
	for id := range s.Members {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// listener takes dragonboat's events. All come from one goroutine, which must never wait.
type listener Consensus

var (
	_ raftio.IRaftEventListener   = (*listener)(nil)
	_ raftio.ISystemEventListener = (*listener)(nil)
)

// LeaderUpdated keeps who leads.
func (l *listener) LeaderUpdated(info raftio.LeaderInfo) {
	known := l.leaders[info.ShardID]
	if known == nil {
		return
	}
	before := known.now.Swap(&info)
	if before != nil && before.LeaderID == info.LeaderID && before.Term == info.Term {
		return
	}
	l.counters.leaderChanges.Add(1)
	l.log.Debug("leader", zap.Uint64("shard", info.ShardID), zap.Uint64("leader", info.LeaderID), zap.Uint64("term", info.Term))
	l.opts.LeaderChanged(info.ShardID, image.NodeID(info.LeaderID), info.Term)
}

// SendSnapshotStarted counts the snapshots sent to other nodes.
func (l *listener) SendSnapshotStarted(raftio.SnapshotInfo) { l.counters.snapshotsSent.Add(1) }

// SnapshotReceived counts the snapshots taken from other nodes.
func (l *listener) SnapshotReceived(raftio.SnapshotInfo) { l.counters.snapshotsReceived.Add(1) }

// The other events tell nothing that is acted on. Those of connections cannot tell whether a node
// is up: several connections share one state, so the last event may be of a failure though all is
// well again.

func (l *listener) ConnectionEstablished(raftio.ConnectionInfo) {}
func (l *listener) ConnectionFailed(raftio.ConnectionInfo)      {}
func (l *listener) NodeHostShuttingDown()                       {}
func (l *listener) NodeUnloaded(raftio.NodeInfo)                {}
func (l *listener) NodeDeleted(raftio.NodeInfo)                 {}
func (l *listener) NodeReady(raftio.NodeInfo)                   {}
func (l *listener) MembershipChanged(raftio.NodeInfo)           {}
func (l *listener) SendSnapshotCompleted(raftio.SnapshotInfo)   {}
func (l *listener) SendSnapshotAborted(raftio.SnapshotInfo)     {}
func (l *listener) SnapshotRecovered(raftio.SnapshotInfo)       {}
func (l *listener) SnapshotCreated(raftio.SnapshotInfo)         {}
func (l *listener) SnapshotCompacted(raftio.SnapshotInfo)       {}
func (l *listener) LogCompacted(raftio.EntryInfo)               {}
func (l *listener) LogDBCompacted(raftio.EntryInfo)             {}
