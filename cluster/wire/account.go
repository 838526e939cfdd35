package wire

import (
	"time"

	"imgcluster/cluster/image"
)

// AccessKey is an access key without its secret.
type AccessKey struct {
	ID      string     `json:"id"`
	User    string     `json:"user,omitempty"` // whom it belongs to
	Role    image.Role `json:"role"`
	Created time.Time  `json:"created"`
	Expires time.Time  `json:"expires,omitzero"` // zero: never
}

// NewKey is an access key that was made just now, with its secret, which no other document has.
type NewKey struct {
	AccessKey
	Secret string `json:"secret"`
}

// KeyRequest asks for a new access key.
type KeyRequest struct {
	User    string     `json:"user,omitempty"`
	Role    image.Role `json:"role"`
	Expires time.Time  `json:"expires,omitzero"`
}

// KeyList is one page of access keys, by ID. Next is empty on the last page, else the value for ?after= that
// gives the next page.
type KeyList struct {
	Keys []AccessKey `json:"keys"`
	Next string      `json:"next,omitempty"`
}

// User is one user.
type User struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
}

// UserRequest asks for a new user.
type UserRequest struct {
	Name string `json:"name"`
}

// UserList is one page of users, by name, and the removals that are not complete. Next is as in KeyList.
type UserList struct {
	Users    []User    `json:"users"`
	Removals []Removal `json:"removals"`
	Next     string    `json:"next,omitempty"`
}

// Removal is a user's removal: the keys are destroyed, and so nothing of the user can be read any more.
type Removal struct {
	Number uint64    `json:"number"`
	User   string    `json:"user"`
	Since  time.Time `json:"since"`
	// Shards may still have records and files of the user.
	Shards []uint64 `json:"shards,omitempty"`
	// Nodes may still have the user's wrapped keys on their disks, in what compaction has yet to drop.
	Nodes []image.NodeID `json:"nodes,omitempty"`
}
