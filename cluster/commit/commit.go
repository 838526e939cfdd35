// Package commit is how the nodes of a shard agree on what becomes of an upload, for one entry of the shard's
// log. The shard's leader runs a Coordinator: it decides, in memory, which nodes store the upload, tells
// them, and proposes one catalog.Commit when all of these have reported durable copies. Each node that has to
// do with the upload runs a Participant: it follows the decisions, stores, reports, and ends with what the
// log says.
//
// Decisions are provisional, and may be lost with the leader: a new one hears of the uploads from their
// participants and decides anew. Reports are promises: a copy that was reported is kept until the log has
// said that no record names it. The catalog refuses a Commit of copies that a node was free to delete; see
// catalog.Commit.
//
// Both are pure: they take events and return actions. They have no clock, no randomness, no goroutines and no
// network; their callers do what they return, in order, and call them for one event after the other.
package commit

import (
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// Copy is a durable copy of an upload on the node that reports it.
type Copy struct {
	image.Copy
	Check  image.Check         `json:"check"`
	Sealed *image.SealedDigest `json:"sealed,omitempty"` // nil: the upload asks for none
}

// Report is what a node tells the coordinator of an upload: all that it has of it.
type Report struct {
	Node    image.NodeID  `json:"node"`
	Part    uint64        `json:"part"` // the participant: a node has a new one for each try of an upload
	Request image.Request `json:"request"`
	// Copy is the node's durable copy, nil when it has none; Index the last entry of the shard's log that the
	// node had acted on when it looked.
	Copy  *Copy  `json:"copy,omitempty"`
	Index uint64 `json:"index"`
	// Waits: all bytes are here, and the node has waited long for the outcome.
	Waits bool `json:"waits,omitempty"`
	// Problem says why this node cannot store the upload, or gave it up; nil: it can. With Fatal no
	// node can.
	Problem *image.Problem `json:"problem,omitempty"`
	Fatal   bool           `json:"fatal,omitempty"`
	// Lacks is a node that this one, which relays the upload, cannot send it to, for Problem; 0: none.
	Lacks image.NodeID `json:"lacks,omitempty"`
	// Round and Change are those of the newest decision that the node has, 0: none. Where that is not what is
	// decided now, the node is told again.
	Round  uint64 `json:"round,omitempty"`
	Change int    `json:"change,omitempty"`
	// Gone: the node has no part in the upload any more, and no copy.
	Gone bool `json:"gone,omitempty"`
}

// Decision is what the coordinator tells the nodes of an upload. One with neither Storing nor Problem says,
// to nodes that have no part in it, that it is given up.
type Decision struct {
	ID image.ID `json:"id"`
	// Round is the same in all decisions of one coordinator on one try of an upload, and in no others.
	Round uint64 `json:"round"`
	// Change counts the decisions of a round, from 1 on. They may come in another order.
	Change int `json:"change"`
	// Bytes is the image's size.
	Bytes int64 `json:"bytes,omitempty"`
	// Storing are the nodes that are to store a copy, the owner first.
	Storing []image.NodeID `json:"storing,omitempty"`
	// Standby holds the bytes for a takeover; 0: nobody.
	Standby image.NodeID `json:"standby,omitempty"`
	// Lacking are those of Storing that do not get the bytes from the client: Source sends them, once it has
	// stored its copy.
	Lacking []image.NodeID `json:"lacking,omitempty"`
	Source  image.NodeID   `json:"source,omitempty"`
	// Problem says that the upload is over without an entry in the log, nil when it is not.
	Problem *image.Problem `json:"problem,omitempty"`
	// Part is the participant that is told, as far as the coordinator knows; 0: it does not.
	Part uint64 `json:"part,omitempty"`
}

// Action is what a Coordinator or Participant wants done.
type Action interface{ action() }

// Tell sends a decision to a node. It may be lost.
type Tell struct {
	To       image.NodeID
	Decision Decision
}

// Send sends a report to a shard's coordinator. It may be lost. Again: it was sent before, and had no answer.
type Send struct {
	To     image.NodeID
	Report Report
	Again  bool
}

// Propose proposes a command to the shard's log. A Coordinator is told of the answer by Proposed; a
// Participant learns from the log alone what became of it.
type Propose struct {
	ID      image.ID
	Command catalog.Command
}

// Store starts to store this node's copy; Stored or CannotStore tells how that ended.
type Store struct{}

// StopStoring ends Store without a copy, or with one that is deleted: nobody was told of it.
type StopStoring struct{}

// DeleteCopy deletes the copy that Stored was told of.
type DeleteCopy struct{}

// Pass sends the bytes of this node's copy to another one of the storing nodes. CannotSend tells when that
// fails.
type Pass struct {
	To      image.NodeID
	Storing []image.NodeID
}

// Finish ends a participant. Upload is what the log says; nil: nothing, and Problem says why the upload
// failed.
type Finish struct {
	Upload  *catalog.Upload
	Problem *image.Problem
}

func (Tell) action()        {}
func (Send) action()        {}
func (Propose) action()     {}
func (Store) action()       {}
func (StopStoring) action() {}
func (DeleteCopy) action()  {}
func (Pass) action()        {}
func (Finish) action()      {}

// Times are how long coordinators and participants wait.
type Times struct {
	// Report is how often a participant without a decision, or without an outcome, reports again.
	Report time.Duration
	// Takeover is how long a node that has all bytes waits for the outcome before it complains, and how long
	// a node that others complain of has had the upload, and the last of its bytes, before it is taken away.
	Takeover time.Duration
	// Upload is how long an upload makes no progress before it fails.
	Upload time.Duration
}
