package wire

import (
	"imgcluster/cluster/image"
)

// Member is one node of the cluster as the system shard knows it.
type Member struct {
	ID     image.NodeID `json:"id"`
	API    string       `json:"api"`   // host:port
	Raft   string       `json:"raft"`  // host:port
	State  string       `json:"state"` // active, draining or leaving
	Up     bool         `json:"up"`
	Shards int          `json:"shards"` // data shards that it holds or is to hold
	Moving int          `json:"moving"` // of these, those on their way to or from it
	Images int64        `json:"images"` // copies of images on it
	Leads  int          `json:"leads"`  // data and system shards
}

// MemberList is the document that lists the members.
type MemberList struct {
	Members []Member `json:"members"`
}

// MemberOp is what to do with a member.
type MemberOp string

// The changes of a cluster's members.
const (
	MemberAdd    MemberOp = "add"
	MemberDrain  MemberOp = "drain"
	MemberResume MemberOp = "resume" // take on work again
	MemberRemove MemberOp = "remove"
)

// MemberChange is one change; the addresses, host:port, are for MemberAdd only.
type MemberChange struct {
	Op   MemberOp     `json:"op"`
	ID   image.NodeID `json:"id"`
	API  string       `json:"api,omitempty"`
	Raft string       `json:"raft,omitempty"`
}
