package modes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"imgcluster/cluster"
	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/printable"
	"imgcluster/cluster/store"
	"imgcluster/config"
	"imgcluster/crypto"
	"imgcluster/genimg"
	"imgcluster/modes/result"
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
var errVerdict = errors.New("the run failed")

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

// exitStatus maps an error to the exit status that the help lists.
func exitStatus(err error) int {
	var kind *image.Error
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errVerdict):
		return exitVerdict
	case isUsage(err):
		return exitUsage
	case errors.Is(err, client.ErrNobodyAnswers):
		return exitNobody
	case errors.As(err, &kind) && kind.Kind == image.KindNoQuorum:
		return exitNobody
	case errors.Is(err, context.Canceled):
		return exitCanceled
	}
	return exitFailed
}

// isUsage tells whether the user's command line, configuration, key file, data directory or input
// file has to change.
func isUsage(err error) bool {
	var (
		usage   *usageError
		key     *crypto.Error
		claim   *store.ClaimError
		refused *cluster.RefusedError
		log     *result.ReadError
		node    *nodeError
		kind    *image.Error
	)
	switch {
	case errors.As(err, &kind) && kind.Kind == image.KindInvalid, errors.As(err, &node) && node.status == exitUsage:
		return true
	case errors.Is(err, config.ErrInvalid), errors.Is(err, genimg.ErrSpec):
		return true
	}
	return errors.As(err, &usage) || errors.As(err, &key) || errors.As(err, &claim) || errors.As(err, &refused) || errors.As(err, &log)
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
	if hint := e.hintOf(err); hint != "" {
		fmt.Fprintf(w, "hint: %s\n", printable.Lines(hint))
	}
}

// hintOf finds the next step that an error names.
func (e *env) hintOf(err error) string {
	var (
		hinted interface{ Hint() string }
		kind   *image.Error
		key    *crypto.Error
		gen    *genimg.Error
		log    *result.ReadError
	)
	switch {
	case errors.As(err, &hinted):
		return hinted.Hint()
	case errors.Is(err, client.ErrNobodyAnswers):
		return e.startHint()
	case errors.As(err, &kind):
		return kind.Hint
	case errors.As(err, &key):
		return key.Hint
	case errors.As(err, &gen):
		return gen.Hint
	case errors.As(err, &log):
		return log.Hint
	}
	return ""
}

// startHint says how the nodes of the configuration in use are started.
func (e *env) startHint() string {
	if e.cfg == nil || e.cfg.OneMachine() {
		return "start them with: imgcluster up" + e.sameConfig()
	}
	return "start each on its machine, with: imgcluster server --id N" + e.sameConfig()
}

// noPath is err without the path of the file, where the words before it name that already.
func noPath(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}
