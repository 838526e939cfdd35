package consensus

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/raftnet"
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

// Options configure one node. Durations and counts that are zero take the default named beside them.
type Options struct {
	NodeID       image.NodeID
	RaftAddress  string  // host:port that the other nodes know; the node is known by it
	Listen       string  // host:port to listen on, empty: RaftAddress; without a host: all addresses
	Dir          string  // data directory; raft/ and catalog/ are made in it
	DeploymentID uint64  // of the cluster; messages of another one are dropped
	Shards       []Shard // to start with; see StartShard

	// Applied gets the events that Apply returned, in log order for each shard, once readers
	// see the state that they are of. Commands that were applied but not yet synced before a crash are
	// applied again, so their events come again. Shards call at the same time. It must not block,
	// and is called before Start returns. May be nil.
	Applied func(shard uint64, events []catalog.Event)
	// Restored is called when a shard's whole state was replaced by a snapshot: events were skipped,
	// and whoever keeps something derived from them reads it again. Rules as for Applied.
	Restored func(shard uint64)
	// LeaderChanged is called for every change, from one goroutine; leader 0 is none. It must not block.
	LeaderChanged func(shard uint64, leader image.NodeID, term uint64)
	// Live lists the nodes that may lead, this one too; nil means all. A node whose Raft port does
	// not answer is never given a shard, whatever Live says.
	Live func() []image.NodeID

	// Candidates returns the nodes that may lead each shard there is; nil: the bootstrap members of Shards,
	// each first in turn.
	Candidates func() []Candidates

	RTT                time.Duration // one tick, 50 ms
	ElectionRTT        uint64        // ticks without a leader before an election, 10
	HeartbeatRTT       uint64        // ticks between heartbeats, 1
	SnapshotEntries    uint64        // commands between snapshots, 20,000
	CompactionOverhead uint64        // commands kept behind a snapshot for slow nodes, 10,000
	RebalanceEvery     time.Duration // between checks of who leads, 1 s
	ProposalAttempt    time.Duration // one try of a proposal or read, 400 ms
	ProposalTimeout    time.Duration // all tries together, 10 s

	Logger *zap.Logger // nil: silent
}

// withDefaults returns o with what is zero filled in.
func (o Options) withDefaults() Options {
	setDefault(&o.Listen, o.RaftAddress)
	setDefault(&o.RTT, 50*time.Millisecond)
	setDefault(&o.ElectionRTT, 10)
	setDefault(&o.HeartbeatRTT, 1)
	setDefault(&o.SnapshotEntries, 20_000)
	setDefault(&o.CompactionOverhead, 10_000)
	setDefault(&o.RebalanceEvery, time.Second)
	setDefault(&o.ProposalAttempt, 400*time.Millisecond)
	setDefault(&o.ProposalTimeout, 10*time.Second)
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Applied == nil {
		o.Applied = func(uint64, []catalog.Event) {}
	}
	if o.Restored == nil {
		o.Restored = func(uint64) {}
	}
	if o.LeaderChanged == nil {
		o.LeaderChanged = func(uint64, image.NodeID, uint64) {}
	}
	o.Shards = slices.Clone(o.Shards)
	slices.SortFunc(o.Shards, func(a, b Shard) int { return int(int64(a.ID) - int64(b.ID)) })
	if o.Candidates == nil {
		candidates := rotated(o.Shards)
		o.Candidates = func() []Candidates { return candidates }
	}
	return o
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// validate lists every problem of o at once.
func (o *Options) validate() error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if o.NodeID == 0 {
		bad("the node ID is 0")
	}
	if o.Dir == "" {
		bad("no data directory is named")
	}
	if host, _, _ := net.SplitHostPort(o.RaftAddress); !raftnet.ValidAddress(o.RaftAddress) || host == "" {
		bad("the Raft address %q is not host:port", o.RaftAddress)
	}
	if !raftnet.ValidAddress(o.Listen) {
		bad("the address %q to listen on is not host:port", o.Listen)
	}
	if o.RTT < time.Millisecond {
		bad("RTT %v is below 1 ms", o.RTT)
	}
	if o.ElectionRTT < 3*o.HeartbeatRTT {
		bad("ElectionRTT %d is below three times HeartbeatRTT %d", o.ElectionRTT, o.HeartbeatRTT)
	}
	if o.ProposalAttempt < 2*o.RTT || o.ProposalTimeout < o.ProposalAttempt {
		bad("ProposalAttempt %v is not between twice RTT %v and ProposalTimeout %v",
			o.ProposalAttempt, o.RTT, o.ProposalTimeout)
	}
	if o.RebalanceEvery < 0 {
		bad("RebalanceEvery %v is negative", o.RebalanceEvery)
	}
	for i, s := range o.Shards {
		switch {
		case s.ID == 0:
			bad("shard ID 0 is not allowed")
		case i > 0 && s.ID == o.Shards[i-1].ID:
			bad("shard %d is listed twice", s.ID)
		case s.Apply == nil:
			bad("shard %d has no Apply", s.ID)
		case s.Members != nil && s.Members[o.NodeID] != o.RaftAddress:
			bad("shard %d has %q as this node's address, not %q", s.ID, s.Members[o.NodeID], o.RaftAddress)
		}
	}
	if len(problems) == 0 {
		return nil
	}
	return image.Errorf(image.KindInvalid, "the Raft settings are not usable: %w", errors.Join(problems...)).
		WithHint("correct the cluster section of the configuration; " +
			"every node needs an ID, an address and the same shards")
}
