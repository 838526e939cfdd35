package wire

import "imgcluster/cluster/image"

// MasterKey is the state of the cluster's master key. Keys are named by their IDs, which reveal nothing of
// them.
type MasterKey struct {
	Key   string          `json:"key"`
	Next  string          `json:"next,omitempty"` // that it is changing to
	Left  int             `json:"left"`           // users' keys and access keys that are sealed by the old one
	Nodes []MasterKeyNode `json:"nodes"`          // the members
	Waits []string        `json:"waits"`          // what the end of the change waits for, in words
}

// MasterKeyNode is what is known of a node's master keys.
type MasterKeyNode struct {
	ID image.NodeID `json:"id"`
	Up bool         `json:"up"`
	MasterKeyReport
}

// MasterKeyReport is what a node reports of its master keys to the others.
type MasterKeyReport struct {
	// Has are the keys that it has, Uses that by which it seals, also after a restart;
	// empty while that changes.
	Has     []string `json:"has"`
	Uses    string   `json:"uses"`
	Problem string   `json:"problem,omitempty"` // what the operator has to solve, in words
}

// The changes of the master key.
const (
	MasterKeyRotate = "rotate" // change to the next one
	MasterKeyFinish = "finish" // the old one is good no more
)

// MasterKeyChange is one step of a change of the master key.
type MasterKeyChange struct {
	Op string `json:"op"`
}

// UserKey is one of a user's keys, wrapped by the master key.
type UserKey struct {
	User    string `json:"user"`
	Key     uint32 `json:"key"` // its number
	Wrapped []byte `json:"wrapped"`
}

// UserKeyList is one page of users' keys, by user and number. Next is empty on the last page, else the value
// for ?after= that gives the next page.
type UserKeyList struct {
	Keys []UserKey `json:"keys"`
	Next string    `json:"next,omitempty"`
}
