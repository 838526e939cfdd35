package catalog

import (
	"slices"

	"imgcluster/cluster/image"
)

// MemberState says what a member is there for.
type MemberState string

// The states of a member. A draining one takes on nothing new and its copies move to others; a
// leaving one is removed for good once nothing needs it any more.
const (
	MemberActive   MemberState = "active"
	MemberDraining MemberState = "draining"
	MemberLeaving  MemberState = "leaving"
)

// Member is one node of the cluster.
type Member struct {
	ID    image.NodeID `json:"id"`
	API   string       `json:"api"`  // host:port of its API
	Raft  string       `json:"raft"` // host:port of its Raft transport
	State MemberState  `json:"state"`
	// Incarnation is that of its data directory, Starts how often it was started with it, and Run
	// distinguishes the last start from a copy of it. Empty before its first start.
	Incarnation string `json:"incarnation,omitempty"`
	Starts      uint64 `json:"starts,omitempty"`
	Run         string `json:"run,omitempty"`
}

// Replica is one node's membership in a Raft group. A node that comes back to a shard is another
// replica with a higher number: Raft never takes a removed one back, and one that lost its log must
// not vote again.
type Replica struct {
	Node   image.NodeID `json:"node"`
	Number uint32       `json:"number,omitempty"`
}

// ID is the replica's ID in Raft.
func (r Replica) ID() uint64 { return uint64(r.Number)<<32 | uint64(r.Node) }

// ReplicaOf returns the replica with this Raft ID.
func ReplicaOf(id uint64) Replica {
	return Replica{Node: image.NodeID(uint32(id)), Number: uint32(id >> 32)}
}

// Layout says which nodes hold a shard. While it moves, Next are those that are to hold it and Old
// those that did and still have images that others need. New are those of Nodes and Next that came in the
// place of a replica whose data was lost, until they have the shard's data.
type Layout struct {
	Version uint64    `json:"version"` // grows with every change
	Nodes   []Replica `json:"nodes"`   // the first one should lead
	Next    []Replica `json:"next,omitempty"`
	Old     []Replica `json:"old,omitempty"`
	New     []Replica `json:"new,omitempty"`
}

// Equal reports whether two layouts are the same, o nil for none.
func (l *Layout) Equal(o *Layout) bool {
	return o != nil && l.Version == o.Version && slices.Equal(l.Nodes, o.Nodes) &&
		slices.Equal(l.Next, o.Next) && slices.Equal(l.Old, o.Old) && slices.Equal(l.New, o.New)
}

// NodesOf lists the nodes of some replicas.
func NodesOf(replicas []Replica) []image.NodeID {
	ids := make([]image.NodeID, len(replicas))
	for i, r := range replicas {
		ids[i] = r.Node
	}
	return ids
}

func on(replicas []Replica, node image.NodeID) int {
	return slices.IndexFunc(replicas, func(r Replica) bool { return r.Node == node })
}

// All are the replicas that may be in the shard's Raft group.
func (l *Layout) All() []Replica { return slices.Concat(l.Nodes, l.Next, l.Old) }

// Of returns the replica that a node should run: the newest one; ok is false when it holds nothing of
// the shard.
func (l *Layout) Of(node image.NodeID) (r Replica, ok bool) {
	for _, x := range l.All() {
		if x.Node == node && (!ok || x.Number > r.Number) {
			r, ok = x, true
		}
	}
	return r, ok
}

// intact counts the nodes that hold the shard and have its data, without some.
func (l *Layout) intact(without ...image.NodeID) (n int) {
	for _, r := range l.Nodes {
		if !slices.Contains(l.New, r) && !slices.Contains(without, r.Node) {
			n++
		}
	}
	return n
}

// Membership is what the system shard keeps of the cluster.
type Membership struct {
	Version uint64 `json:"version"` // grows with every change
	Cluster string `json:"cluster"` // its name
	KeyID   string `json:"key_id"`  // of the master key
	// Rotation is the change to another master key, nil when there is none.
	Rotation *Rotation `json:"rotation,omitempty"`
	// Retired are the IDs of former master keys, the last ones.
	Retired []string `json:"retired,omitempty"`
	Members []Member `json:"members"` // by ID
	// Shards are the layouts, the system shard's too.
	Shards map[uint64]*Layout `json:"shards"`
	// Replicas is the highest number that a replica got.
	Replicas uint32 `json:"replicas"`
	// Removed are the IDs of former members, which are not used again.
	Removed []image.NodeID `json:"removed,omitempty"`
}

// Member returns a member, nil when there is none with this ID.
func (m *Membership) Member(id image.NodeID) *Member {
	for i := range m.Members {
		if m.Members[i].ID == id {
			return &m.Members[i]
		}
	}
	return nil
}

// Holding counts the shards on a node.
func (m *Membership) Holding(id image.NodeID) (n int) {
	for _, l := range m.Shards {
		if _, ok := l.Of(id); ok {
			n++
		}
	}
	return n
}

// GetMembership returns what the system shard keeps of the cluster, nil before the first Join.
func GetMembership(r Reader) (*Membership, error) {
	return find[Membership](r, []byte{memberKey})
}
