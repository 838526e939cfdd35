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
	exitCanceled = 130 // 128 + SIGINT, as in shells
)

// errVerdict is the error of a run whose report has failed.
var errVerdict error = verdictError{}

type verdictError struct{}

func (verdictError) Error() string { return "the run failed" }

// ExitStatus returns the exit status of a failed report.
func (verdictError) ExitStatus() int { return exitVerdict }

// errDeclined is the error when the user does not confirm.
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

// ExitStatus returns the exit status of a usage error.
func (u *usageError) ExitStatus() int { return exitUsage }

func usagef(hint, format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...), hint: hint}
}

// hintedError adds to an error the next step for this command line.
type hintedError struct {
	error
	hint string
}

func (h *hintedError) Unwrap() error { return h.error }

// Hint returns the next step.
func (h *hintedError) Hint() string { return h.hint }

// partError is the error of a command over several images of which some failed. Each failure was printed
// when it happened.
type partError struct {
	text   string
	causes []error
}

func (p *partError) Error() string   { return p.text }
func (p *partError) Unwrap() []error { return p.causes }

// Hint returns no hint, since those of the causes were printed.
func (p *partError) Hint() string { return "" }

// statusRank orders the exit statuses of an error that has several: the first one counts.
var statusRank = []int{exitVerdict, exitUsage, exitNobody, exitCanceled}

// exitStatus returns the exit status of an error, as the help lists them. Errors have it by a method
// ExitStatus; of several the first in statusRank counts.
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

// statuses appends the exit statuses of err. Those of wrapped errors count when err has none or exitFailed.
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
		return // the report was printed
	}
	if out := (*outputError)(nil); errors.As(err, &out) && out.unread() {
		return // as other programs do when a reader such as head has enough
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
