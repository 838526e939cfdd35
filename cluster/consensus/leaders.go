package consensus

import (
	"time"

	"github.com/lni/dragonboat/v4/raftio"
	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// Leader returns the shard's leader and its term from memory; ok is false when there is none. A
// leader that just died is named until the next election, so this is a hint and no proof.
func (c *Consensus) Leader(shard uint64) (node image.NodeID, term uint64, ok bool) {
	s := c.shard(shard)
	if s == nil {
		return 0, 0, false
	}
	info := s.leader.Load()
	if info == nil || info.LeaderID == raftio.NoLeader {
		return 0, 0, false
	}
	return catalog.ReplicaOf(info.LeaderID).Node, info.Term, true
}

// LeaderOf reports whether this node leads the shard, with the limits of Leader.
func (c *Consensus) LeaderOf(shard uint64) bool {
	node, _, ok := c.Leader(shard)
	return ok && node == c.opts.NodeID
}

// Unreachable returns why a node's Raft port, host:port, has not been reached for so long; nil when it was,
// or when there was no need to. The node itself may reach this one.
func (c *Consensus) Unreachable(address string, d time.Duration) error {
	return c.transport.Unreachable(address, d)
}

// HeardWithin reports whether Raft messages of the node with this address, host:port, came within the last d.
func (c *Consensus) HeardWithin(address string, d time.Duration) bool {
	return c.transport.HeardWithin(address, d)
}

// Ready reports whether every shard on this node has a leader.
func (c *Consensus) Ready() bool {
	for _, shard := range c.Hosted() {
		if _, _, ok := c.Leader(shard); !ok {
			return false
		}
	}
	return true
}

// listener takes dragonboat's events. All come from one goroutine, which must never wait.
type listener Consensus

var (
	_ raftio.IRaftEventListener   = (*listener)(nil)
	_ raftio.ISystemEventListener = (*listener)(nil)
)

// LeaderUpdated keeps who leads.
func (l *listener) LeaderUpdated(info raftio.LeaderInfo) {
	known := (*Consensus)(l).shard(info.ShardID)
	if known == nil || known.Replica.ID() != info.ReplicaID {
		return
	}
	before := known.leader.Swap(&info)
	if before != nil && before.LeaderID == info.LeaderID && before.Term == info.Term {
		return
	}
	l.counters.leaderChanges.Add(1)
	l.log.Debug("leader", zap.Uint64("shard", info.ShardID), zap.Uint64("leader", info.LeaderID),
		zap.Uint64("term", info.Term))
	l.opts.LeaderChanged(info.ShardID, catalog.ReplicaOf(info.LeaderID).Node, info.Term)
}

// SendSnapshotStarted counts the snapshots sent to other nodes.
func (l *listener) SendSnapshotStarted(raftio.SnapshotInfo) { l.counters.snapshotsSent.Add(1) }

// SnapshotReceived counts the snapshots taken from other nodes.
func (l *listener) SnapshotReceived(raftio.SnapshotInfo) { l.counters.snapshotsReceived.Add(1) }

// Nothing follows from the other events. Those of connections do not show whether a node is up: several
// connections share one state, so the last event may be of a failure though all have recovered.

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
