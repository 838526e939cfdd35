package modes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"imgcluster/cluster"
	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
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
	exitCanceled = 130
)

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
		usage    *usageError
		problems config.Problems
		key      *crypto.Error
		claim    *store.ClaimError
		refused  *cluster.RefusedError
		log      *result.ReadError
		kind     *image.Error
	)
	if errors.As(err, &kind) && kind.Kind == image.KindInvalid {
		return true
	}
	return errors.As(err, &usage) || errors.As(err, &problems) || errors.As(err, &key) || errors.As(err, &claim) ||
		errors.As(err, &refused) || errors.As(err, &log) || errors.Is(err, genimg.ErrSpec) ||
		strings.HasPrefix(err.Error(), "unknown command ") // cobra has no type for it
}

// printError writes an error and its next step.
func printError(w io.Writer, err error) {
	if errors.Is(err, errVerdict) {
		return // the report has said it
	}
	fmt.Fprintf(w, "imgcluster: %v\n", err)
	if hint := hintOf(err); hint != "" {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
}

// hintOf finds the next step that an error names.
func hintOf(err error) string {
	var (
		usage  *usageError
		kind   *image.Error
		key    *crypto.Error
		gen    *genimg.Error
		log    *result.ReadError
		hinted interface{ Hint() string }
	)
	switch {
	case errors.As(err, &usage):
		return usage.hint
	case errors.As(err, &hinted):
		return hinted.Hint()
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
