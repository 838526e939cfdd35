package access

import (
	"errors"

	"imgcluster/cluster/image"
)

// Reason is why a request is refused for its credentials. It is in the chain of the error, for errors.As, and
// a label in /metrics: no other values may come from a request.
type Reason string

// The reasons. A client is not told ReasonUnknown, ReasonRemoved and ReasonSecret apart.
const (
	ReasonNone        Reason = "none"        // it has no credentials
	ReasonMalformed   Reason = "malformed"   // what it has is no access key
	ReasonUnknown     Reason = "unknown"     // no node of this cluster has made the key's ID
	ReasonRemoved     Reason = "removed"     // a node has, and there is no such key any more
	ReasonSecret      Reason = "secret"      // there is the key, with another secret
	ReasonExpired     Reason = "expired"     // the key's time is over
	ReasonCertificate Reason = "certificate" // of another cluster or master key, or of another time
	ReasonRole        Reason = "role"        // the key is good, and not for this
)

// Reasons are all of them.
var Reasons = []Reason{
	ReasonNone, ReasonMalformed, ReasonUnknown, ReasonRemoved, ReasonSecret, ReasonExpired, ReasonCertificate,
	ReasonRole,
}

// Error implements error.
func (r Reason) Error() string { return "credentials refused: " + string(r) }

// refuse puts the reason into the chain of an error.
func (r Reason) refuse(e *image.Error) *image.Error {
	e.Err = errors.Join(r, e.Err)
	return e
}

// ErrCertificate returns the error of a request whose certificate is not good, by that of Identify.
func ErrCertificate(err error) error {
	e := image.Errorf(image.KindUnauthorized, "%w", err).WithHint(image.HintOf(err))
	return ReasonCertificate.refuse(e)
}

// RoleHint is what a sender may do whom a request is not for.
const RoleHint = "use a key of the user and role that it needs: " +
	"an administrator makes one with imgcluster key add"

// ErrRole returns the error of a request that is not for its sender.
func ErrRole(method, path string, p Principal) error {
	e := image.Errorf(image.KindForbidden, "%.20q %.200q is not for %s", method, path, p).
		WithHint(RoleHint)
	return ReasonRole.refuse(e)
}
