package consensus

import (
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/peerconn"
	"imgcluster/crypto"
)

// Shard is one Raft group as this node runs it.
type Shard struct {
	ID uint64 // from 1; the same on every node
	// Replica is this node's in the group; zero is the one of a bootstrap member.
	Replica catalog.Replica
	// Members are the bootstrap members' Raft addresses, host:port, this node among them; none when the
	// group exists already and this replica joins it.
	Members map[image.NodeID]string

	// Apply executes one command. It is a pure function of what tx holds, index and cmd: no clock, no
	// randomness, no state of its own. It must not keep cmd or use tx after it returns. When tx
	// returns an error the node stops before anything is committed, so Apply may return anything
	// then. A panic undoes the command on every node and Propose answers KindInternal.
	Apply func(tx catalog.Tx, index uint64, cmd []byte) (result []byte, events []catalog.Event)
}

// Options configure one node. All fields are needed; the bounds of durations and counts are those of the
// configuration.
type Options struct {
	NodeID       image.NodeID
	RaftAddress  string // host:port that the other nodes know; the node is known by it
	Listen       string // host:port to take datagrams on; without a host: all addresses
	Dir          string // data directory; raft/ and catalog/ are made in it
	DeploymentID uint64 // of the cluster; messages of another one are dropped

	// Disk seals the values of the catalog and the commands in Raft's log on this node's disk, Snapshots the
	// values of a snapshot on its way from node to node, which waits on the receiver's disk.
	Disk      *crypto.Sealer
	Snapshots Sealer

	Port        *peerconn.Port       // takes the other nodes' connections
	Credentials peerconn.Credentials // of this node, to connect to the others
	// Address returns the Raft address, host:port, of a node that this one knows, else an empty string; Members
	// returns those of all.
	Address func(node image.NodeID) string
	Members func() map[image.NodeID]string

	// Applied gets the events that Apply returned for the entries of a shard's log up to index, in the log's
	// order, once readers see the state that they are of; also when there are none. Commands that were applied
	// but not yet synced before a crash are applied again, so their events come again. Shards call at the same
	// time. It must not block, and is called before StartShard returns.
	Applied func(shard, index uint64, events []catalog.Event)
	// Restored is called when a shard's whole state was replaced by a snapshot, that as of the entry index:
	// events were skipped, and whoever keeps something derived from them reads it again. Rules as for Applied.
	Restored func(shard, index uint64)
	// LeaderChanged is called for every change, from one goroutine; leader 0 is none. It must not block.
	LeaderChanged func(shard uint64, leader image.NodeID, term uint64)
	// Live lists the nodes that may lead, this one too. A node whose Raft port does not answer is never
	// given a shard, whatever Live says.
	Live func() []image.NodeID
	// Candidates returns the nodes that may lead each shard there is.
	Candidates func() []Candidates

	RTT                time.Duration // one tick
	ElectionRTT        uint64        // ticks without a leader before an election
	HeartbeatRTT       uint64        // ticks between heartbeats
	SnapshotEntries    uint64        // commands between snapshots
	CompactionOverhead uint64        // commands kept behind a snapshot for slow nodes
	RebalanceEvery     time.Duration // between checks of who leads
	ProposalAttempt    time.Duration // one try of a proposal or read
	ProposalTimeout    time.Duration // all tries together

	Logger *zap.Logger
}

// pause is how long to wait before something is tried again that a new leader may answer.
func (o *Options) pause() time.Duration { return o.RTT / 2 }
