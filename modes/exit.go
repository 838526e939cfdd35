package modes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"imgcluster/cluster/image"
	"imgcluster/cluster/printable"
)

// The exit statuses.
const (
	exitDone     = 0
	exitFailed   = 1
	exitUsage    = 2
	exitNobody   = 3
	exitVerdict  = 99
	exitCanceled = 130 // as a shell tells of SIGINT
)

// errVerdict is the report's failure.
var errVerdict error = verdictError{}

type verdictError struct{}

func (verdictError) Error() string { return "the run failed" }

// ExitStatus returns that of a report with a failed check.
func (verdictError) ExitStatus() int { return exitVerdict }

// errDeclined is the user's no.
var errDeclined = errors.New("not started; nothing was sent")

// usageError is a mistake on the command line.
type usageError struct {
	err  error
	hint string
}

func (u *usageError) Error() string { return u.err.Error() }
func (u *usageError) Unwrap() error { return u.err }

// Hint returns the next step.
func (u *usageError) Hint() string { return u.hint }

// ExitStatus returns that of a mistake on the command line.
func (u *usageError) ExitStatus() int { return exitUsage }

func usagef(hint, format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...), hint: hint}
}

// hintedError gives an error the next step that fits this command line.
type hintedError struct {
	error
	hint string
}

func (h *hintedError) Unwrap() error { return h.error }

// Hint returns the next step.
func (h *hintedError) Hint() string { return h.hint }

// partError sums up a command over several things of which some failed. Each failure was printed
// when it happened.
type partError struct {
	text   string
	causes []error
}

func (p *partError) Error() string   { return p.text }
func (p *partError) Unwrap() []error { return p.causes }

// Hint keeps the hints of the causes from being printed again.
func (p *partError) Hint() string { return "" }

// statusRank has the statuses of which an error may have several, the first one first.
var statusRank = []int{exitVerdict, exitUsage, exitNobody, exitCanceled}

// exitStatus maps an error to the exit status that the help lists. An error says it by a method ExitStatus;
// of several in one the first in statusRank counts.
func exitStatus(err error) int {
	if err == nil {
		return exitDone
	}
	found := statuses(err, nil)
	if errors.Is(err, context.Canceled) {
		found = append(found, exitCanceled)
	}
	for _, status := range statusRank {
		if slices.Contains(found, status) {
			return status
		}
	}
	return exitFailed
}

// statuses adds the exit statuses of err. What an error wraps counts where it has none of its own, or that of
// a failure like any other.
func statuses(err error, found []int) []int {
	if e, ok := err.(interface{ ExitStatus() int }); ok && e.ExitStatus() != exitFailed {
		return append(found, e.ExitStatus())
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return statuses(e.Unwrap(), found)
	case interface{ Unwrap() []error }:
		for _, cause := range e.Unwrap() {
			found = statuses(cause, found)
		}
	}
	return found
}

// printError writes an error and its next step.
func (e *env) printError(w io.Writer, err error) {
	if errors.Is(err, errVerdict) {
		return // the report has said it
	}
	if out := (*outputError)(nil); errors.As(err, &out) && out.unread() {
		return // as other programs end before a head that has enough
	}
	text := err.Error()
	if text == context.Canceled.Error() {
		text = "stopped"
	}
	fmt.Fprintf(w, "imgcluster: %s\n", printable.Lines(text))
	if hint := image.HintOf(err); hint != "" {
		fmt.Fprintf(w, "hint: %s\n", printable.Lines(hint))
	}
}

// startHint says how the nodes of the configuration in use are started.
func (e *env) startHint() string {
	if e.cfg == nil || e.cfg.OneHost() {
		return "start them with: imgcluster up" + e.sameConfig()
	}
	return "start each on its machine, with: imgcluster server --id N" + e.sameConfig()
}
