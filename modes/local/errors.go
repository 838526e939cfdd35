package local

import (
	"fmt"
	"strings"
)

// exitUsage is the exit status of a process whose command line or configuration has to change.
const exitUsage = 2

// Error is a refusal: the command line or the configuration has to change.
type Error struct {
	Err  error
	Next string // the next step
}

func refusef(next, format string, args ...any) error {
	return &Error{Err: fmt.Errorf(format, args...), Next: next}
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Hint returns the next step.
func (e *Error) Hint() string { return e.Next }

// ExitStatus returns the exit status of a usage error.
func (e *Error) ExitStatus() int { return exitUsage }

// NodeError says how a node's process ended.
type NodeError struct {
	ID     int
	Said   string // the last error in its log, or how it ended
	Next   string // the next step
	Status int    // its exit status, -1 for a signal
}

func (n *NodeError) Error() string {
	if name := fmt.Sprintf("node %d", n.ID); !strings.HasPrefix(n.Said, name+" ") {
		return name + ": " + n.Said
	}
	return n.Said
}

// Hint returns the next step.
func (n *NodeError) Hint() string { return n.Next }

// ExitStatus returns 2 when the process was refused as a usage error, else 1.
func (n *NodeError) ExitStatus() int {
	if n.Status == exitUsage {
		return exitUsage
	}
	return 1
}
