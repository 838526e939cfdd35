package bootstrap

import (
	"errors"
	"fmt"

	"imgcluster/cluster/image"
)

// Why a node is refused, where more than a setting has to change: a *RefusedError wraps these.
var (
	ErrNotMember      = errors.New("not a member of the cluster")
	ErrRemoved        = errors.New("was removed from the cluster")
	ErrLostRaft       = errors.New("has lost its Raft log and its catalog")
	ErrOtherDirectory = errors.New("another data directory")
	ErrOtherHistory   = errors.New("before a backup was restored, or after")
	ErrHalfRestored   = errors.New("not restored to its end")
	ErrOlderCopy      = errors.New("an older copy")
	ErrCopy           = errors.New("a copy")
	ErrPeerLostData   = errors.New("a new data directory, without what it has acknowledged") // a peer's
)

// RefusedError says that a node may not run with what it was given.
type RefusedError struct {
	reason error
	hint   string
}

// Refuse returns a *RefusedError with the next step for the user.
func Refuse(hint, format string, args ...any) error {
	return &RefusedError{reason: fmt.Errorf(format, args...), hint: hint}
}

func (r *RefusedError) Error() string { return r.reason.Error() }

// Unwrap returns the reason.
func (r *RefusedError) Unwrap() error { return r.reason }

// Hint returns the next step for the user.
func (r *RefusedError) Hint() string { return r.hint }

// ExitStatus returns the program's exit status 2: the configuration or the host has to change.
func (r *RefusedError) ExitStatus() int { return 2 }

// Removed is the error of a node that is a member no more.
func Removed(id image.NodeID) error {
	return Refuse("its data directory can be deleted; a new node needs a new ID",
		"node %d %w", id, ErrRemoved)
}
