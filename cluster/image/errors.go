package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Kind is what went wrong, for programs to act on; it is sent between nodes and to clients
// as the "code" of an application/problem+json body, and every Kind has one HTTP status.
type Kind string

// The kinds, with their HTTP status.
const (
	KindInvalid        Kind = "invalid"            // 400: malformed name, header or body
	KindDigest         Kind = "digest-mismatch"    // 400: the body is not what Content-Digest promised
	KindIncomplete     Kind = "incomplete-body"    // 400: the body ended before Content-Length
	KindUnauthorized   Kind = "unauthorized"       // 401: no access key, or one that is not good
	KindForbidden      Kind = "forbidden"          // 403: not for this key, or a page of another site
	KindNotFound       Kind = "not-found"          // 404
	KindMethod         Kind = "method-not-allowed" // 405
	KindTooSlow        Kind = "too-slow"           // 408: the body does not move as limits.body_rate asks
	KindConflict       Kind = "upload-conflict"    // 409: the same upload ID with other bytes
	KindStale          Kind = "stale"              // 409: what the command goes by has changed meanwhile
	KindLengthRequired Kind = "length-required"    // 411
	KindExists         Kind = "exists"             // 412: If-None-Match and there is such an image
	KindChanged        Kind = "changed"            // 412: If-Match and the image is another one
	KindTooLarge       Kind = "too-large"          // 413
	KindMedia          Kind = "unsupported-media"  // 415: such a Content-Type or Content-Encoding is not taken
	KindRange          Kind = "range"              // 416: no byte of the Range is in the image
	KindMisplaced      Kind = "misplaced"          // 421: the image's shard is on other nodes; reload the map
	KindOverload       Kind = "overload"           // 429: too many uploads at once; retry
	KindNoQuorum       Kind = "no-quorum"          // 503: the shard has no leader, or no node answers; retry
	KindAborted        Kind = "aborted"            // 503: no node could finish the upload; retry
	KindDamaged        Kind = "no-good-copy"       // 503: no copy that authenticates can be reached
	KindDiskFull       Kind = "disk-full"          // 507
	KindInternal       Kind = "internal"           // 500: a fault in the program
)

// statuses by kind; what is missing is 500.
var statuses = map[Kind]int{
	KindInvalid:        400,
	KindDigest:         400,
	KindIncomplete:     400,
	KindUnauthorized:   401,
	KindForbidden:      403,
	KindNotFound:       404,
	KindMethod:         405,
	KindTooSlow:        408,
	KindConflict:       409,
	KindStale:          409,
	KindLengthRequired: 411,
	KindExists:         412,
	KindChanged:        412,
	KindTooLarge:       413,
	KindMedia:          415,
	KindRange:          416,
	KindMisplaced:      421,
	KindOverload:       429,
	KindNoQuorum:       503,
	KindAborted:        503,
	KindDamaged:        503,
	KindDiskFull:       507,
	KindInternal:       500,
}

// Status returns the kind's HTTP status.
func (k Kind) Status() int {
	if s, ok := statuses[k]; ok {
		return s
	}
	return 500
}

// Known reports whether k is one of the kinds above.
func (k Kind) Known() bool { return statuses[k] != 0 }

// Temporary reports whether the same request may succeed a little later.
func (k Kind) Temporary() bool {
	switch k {
	case KindOverload, KindNoQuorum, KindAborted, KindDamaged:
		return true
	}
	return false
}

// Error is a failure with its kind, a sentence for the user, and what to do next. Two Errors are
// the same to errors.Is when their kinds are.
type Error struct {
	Kind       Kind
	Detail     string
	RetryAfter time.Duration // 0: not known
	Err        error         // the cause; stays on this node
	hint       string
}

// Errorf makes an Error; each %w keeps a cause for errors.Is and errors.As.
func Errorf(kind Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	cause := errors.Unwrap(err)
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		cause = errors.Join(several.Unwrap()...)
	}
	return &Error{Kind: kind, Detail: err.Error(), Err: cause}
}

// WithHint returns e with its next step set.
func (e *Error) WithHint(hint string) *Error { e.hint = hint; return e }

// WithRetry returns e with the time after which a retry makes sense.
func (e *Error) WithRetry(after time.Duration) *Error { e.RetryAfter = after; return e }

func (e *Error) Error() string { return e.Detail }

// Hint returns the next step; it may be empty.
func (e *Error) Hint() string { return e.hint }

// HintOf returns the next step that an error names by a method Hint: the outermost one's, which knows most of
// what was to be done.
func HintOf(err error) string {
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		return hinted.Hint()
	}
	return ""
}

// ExitStatus returns the program's exit status: 2 when what was asked has to change, 3 when no quorum or
// no node answers, else 1.
func (e *Error) ExitStatus() int {
	switch e.Kind {
	case KindInvalid:
		return 2
	case KindNoQuorum:
		return 3
	}
	return 1
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is an Error of the same kind.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Kind == e.Kind
}

// KindOf returns the kind of err, KindInternal for an error of another type, "" for nil.
func KindOf(err error) Kind {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Kind
	}
	return KindInternal
}

// Problem is the application/problem+json body (RFC 9457) of an Error.
type Problem struct {
	Type       string `json:"type"`
	Title      string `json:"title"`
	Status     int    `json:"status"`
	Detail     string `json:"detail"`
	Code       Kind   `json:"code"`
	Hint       string `json:"hint,omitempty"`
	RetryAfter int    `json:"retry_after_s,omitempty"`
	// Instance names the request that is answered with it; empty in the log.
	Instance string `json:"instance,omitempty"`
}

// AsProblem returns the document that a client gets of err. Errors of other types are KindInternal,
// without their text, which may name things of this node.
func AsProblem(err error) Problem {
	var e *Error
	if !errors.As(err, &e) {
		e = Errorf(KindInternal, "the node failed on this request").WithHint("see the node's log")
	}
	return Problem{
		Type: "urn:imgcluster:problem:" + string(e.Kind), Title: strings.ReplaceAll(string(e.Kind), "-", " "),
		Status: e.Kind.Status(), Detail: e.Detail,
		Code: e.Kind, Hint: e.hint, RetryAfter: int((e.RetryAfter + time.Second - 1) / time.Second),
	}
}

// Err returns the Error that p describes.
func (p Problem) Err() *Error {
	return &Error{
		Kind: p.Code, Detail: p.Detail, hint: p.Hint, RetryAfter: time.Duration(p.RetryAfter) * time.Second,
	}
}

// MarshalJSON implements json.Marshaler: it writes e as a Problem.
func (e *Error) MarshalJSON() ([]byte, error) { return json.Marshal(AsProblem(e)) }
