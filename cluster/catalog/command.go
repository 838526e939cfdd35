// Package catalog is the replicated state of the cluster: the records of committed images, what became of
// uploads, the loads that placement balances, and the cluster's identity and user keys.
//
// It is a pure function: Apply takes the state of one shard and one command of its Raft log and
// gives the new state, the proposer's answer and the events that the node acts on. There is no
// clock, no randomness, no disk and no network in it; a bad command is answered with a rejection.
// Package consensus calls it on every replica in log order.
package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/pack"
)

// commandVersion leads every encoded command, commitVersion a Commit, which is not JSON. What an older
// program does not know in full, be it one more field, has a version above newestVersion: that program must
// not go on without it.
const (
	commandVersion = 1
	commitVersion  = 2
	newestVersion  = commitVersion
)

// ErrNewer is the error of a command of a newer version than this program knows. A node that rejected it,
// where others execute it, would have another state than they from then on.
var ErrNewer = errors.New("the log has a command of a newer imgcluster")

// SystemShard is the Raft group of the cluster's own state; the other shards are data shards.
const SystemShard = 1

// Command is one entry of a shard's log: exactly one field is set. The first seven belong in a data
// shard, the others in the system shard.
type Command struct {
	Commit  *Commit  `json:"commit,omitempty"`
	End     *End     `json:"end,omitempty"`
	Abort   *Abort   `json:"abort,omitempty"`
	Restart *Restart `json:"restart,omitempty"`
	Recopy  *Recopy  `json:"recopy,omitempty"`
	Delete  *Delete  `json:"delete,omitempty"`
	Purge   *Purge   `json:"purge,omitempty"`

	PutKey       *PutKey       `json:"put_key,omitempty"`
	Join         *Join         `json:"join,omitempty"`
	AddMember    *AddMember    `json:"add_member,omitempty"`
	DrainMember  *DrainMember  `json:"drain_member,omitempty"`
	RemoveMember *RemoveMember `json:"remove_member,omitempty"`
	Settle       *Settle       `json:"settle,omitempty"`

	AddAccessKey    *AccessKey       `json:"add_access_key,omitempty"`
	RemoveAccessKey *RemoveAccessKey `json:"remove_access_key,omitempty"`
	RemoveUser      *RemoveUser      `json:"remove_user,omitempty"`
	Removed         *Removed         `json:"removed,omitempty"`

	RotateMaster *RotateMaster `json:"rotate_master,omitempty"`
	Reseal       *Reseal       `json:"reseal,omitempty"`
	EndRotation  *EndRotation  `json:"end_rotation,omitempty"`
	AddUserKey   *PutKey       `json:"add_user_key,omitempty"` // a newer one of a user
	Rewrap       *Rewrap       `json:"rewrap,omitempty"`
}

// ofImages reports whether the command belongs in a data shard.
func (c Command) ofImages() bool {
	return c.Commit != nil || c.End != nil || c.Abort != nil || c.Restart != nil || c.Recopy != nil ||
		c.Delete != nil || c.Purge != nil
}

// Delete removes an image's record. Applied again under its ID it is answered as the first time and
// removes nothing: the name may have another image by then.
type Delete struct {
	ID   image.ID         `json:"id,omitzero"` // of this request; zero: not kept
	User string           `json:"user"`
	Name string           `json:"name"`
	If   image.Conditions `json:"if,omitzero"`
	// Created is the proposer's time. It moves the shard's clock on; see Retention.
	Created time.Time `json:"created,omitzero"`
}

// PutKey makes a user, by its first key, wrapped. Of a user that there is it changes nothing, and is answered
// with the current key. KeyID is at least FirstKeyID.
type PutKey struct {
	User    string    `json:"user"`
	KeyID   uint32    `json:"key_id"`
	Wrapped []byte    `json:"wrapped"`
	Created time.Time `json:"created"`
}

// Encode returns the command as a log entry.
func (c Command) Encode() []byte {
	if c.Commit != nil {
		return c.Commit.appendTo([]byte{commitVersion})
	}
	return append([]byte{commandVersion}, pack.JSON(c)...) // see TestEveryCommandEncodes
}

func decode(b []byte) (Command, error) {
	var c Command
	if len(b) > 0 && b[0] == commitVersion {
		c.Commit = &Commit{}
		d := pack.Read(b[1:])
		if c.Commit.readFrom(d); !d.Done() {
			return Command{}, image.Errorf(image.KindInvalid, "malformed command: no commit")
		}
		return c, nil
	}
	if len(b) > 0 && b[0] > newestVersion {
		return c, fmt.Errorf("%w: version %d, this program knows %d", ErrNewer, b[0], newestVersion)
	}
	if len(b) == 0 || b[0] != commandVersion {
		return c, image.Errorf(image.KindInvalid, "command of an unknown version").
			WithHint("run the same imgcluster version on every node")
	}
	d := json.NewDecoder(bytes.NewReader(b[1:]))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, image.Errorf(image.KindInvalid, "malformed command: %v", err)
	}
	return c, nil
}

// Result answers a proposer: Problem when the command was rejected, and the state it met or made.
type Result struct {
	Problem *image.Problem `json:"problem,omitempty"`
	Upload  *Upload        `json:"upload,omitempty"`
	Key     *PutKey        `json:"key,omitempty"`
	Members *Membership    `json:"members,omitempty"`

	AccessKey *AccessKey `json:"access_key,omitempty"`
	Removal   *Removal   `json:"removal,omitempty"`
	Purged    *Purged    `json:"purged,omitempty"`
}

// DecodeResult reads what Apply answered.
func DecodeResult(b []byte) (Result, error) {
	var r Result
	d := pack.Read(b)
	if d.Begins(asBytes) {
		r.Upload = &Upload{}
		if r.Upload.readFrom(d); !d.Done() {
			return r, image.Errorf(image.KindInternal, "malformed result of a commit")
		}
		return r, nil
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, image.Errorf(image.KindInternal, "malformed result of a command: %w", err)
	}
	return r, nil
}

// Err returns the rejection as an *image.Error, nil when the command was accepted.
func (r Result) Err() error {
	if r.Problem == nil {
		return nil
	}
	return r.Problem.Err()
}

func (r Result) encode() []byte {
	if r.Problem == nil && r.Upload != nil {
		return r.Upload.appendTo([]byte{asBytes})
	}
	return pack.JSON(r)
}

// Join introduces a node at its start. The first Join bootstraps the cluster: it fixes what all nodes must
// agree on, the members, and where the shards are.
type Join struct {
	Node    image.NodeID `json:"node"`
	Cluster string       `json:"cluster"` // its name
	KeyID   string       `json:"key_id"`  // of the master key
	// Keys are the IDs of the master keys that the node has.
	Keys    []string `json:"keys,omitempty"`
	Members []Member `json:"members"` // that bootstrap the cluster
	Shards  []uint64 `json:"shards"`  // the data shards
	// Of the node's data directory; see Member.
	Incarnation string `json:"incarnation"`
	Starts      uint64 `json:"starts"`
	Run         string `json:"run"`
	// Replace says that the node has lost what another incarnation of it had.
	Replace bool `json:"replace,omitempty"`
	// Restored says that the node was restored from a backup and is alone in the groups of all shards, by
	// replicas with this number. It counts once: the number is higher than any that the backup has.
	Restored uint32 `json:"restored,omitempty"`
}

// AddMember takes in a new node, which holds nothing until it starts.
type AddMember struct {
	ID   image.NodeID `json:"id"`
	API  string       `json:"api"`
	Raft string       `json:"raft"`
}

// DrainMember takes work and copies from a node, or makes it take on work again.
type DrainMember struct {
	ID    image.NodeID `json:"id"`
	Drain bool         `json:"drain"`
	// Least is how many active members must stay: with fewer, its copies have nowhere to go.
	Least int `json:"least,omitempty"`
}

// RemoveMember takes a node out for good.
type RemoveMember struct {
	ID image.NodeID `json:"id"`
	// Least is how many active members must stay.
	Least int `json:"least"`
}

// Settle says that a step of a shard's move is done. It counts only for the Version it was decided on.
type Settle struct {
	Shard   uint64 `json:"shard"`
	Version uint64 `json:"version"`
	// Moved: all of Next are in the Raft group and up to date, so they hold the shard now.
	Moved bool `json:"moved,omitempty"`
	// Left are replicas of Old that are no more in the Raft group.
	Left []Replica `json:"left,omitempty"`
	// Ready are replicas of New that are in the Raft group and have the shard's data.
	Ready []Replica `json:"ready,omitempty"`
}
