package bootstrap

import (
	"fmt"

	"imgcluster/cluster/image"
)

// RefusedError says that a node may not run with what it was given.
type RefusedError struct {
	reason string
	hint   string
}

// Refuse returns a *RefusedError with the next step for the user.
func Refuse(hint, format string, args ...any) error {
	return &RefusedError{reason: fmt.Sprintf(format, args...), hint: hint}
}

func (r *RefusedError) Error() string { return r.reason }

// Hint returns the next step for the user.
func (r *RefusedError) Hint() string { return r.hint }

// ExitStatus returns the program's exit status 2: the configuration or the host has to change.
func (r *RefusedError) ExitStatus() int { return 2 }

// Removed is the error of a node that is a member no more.
func Removed(id image.NodeID) error {
	return Refuse("its data directory can be deleted; a new node needs a new ID",
		"node %d was removed from the cluster", id)
}
