package access

import (
	"context"
	"fmt"

	"imgcluster/cluster/image"
)

// Principal is who sends a request. The zero Principal is a stranger, who may do nothing that not everybody
// may.
type Principal struct {
	// Key is the ID of the access key; empty without one.
	Key string
	// User is whom the key belongs to; empty for a key of no user.
	User string
	Role image.Role
	// Node is the node that sends it, by its certificate, on the port of the nodes; else 0.
	Node image.NodeID
	// Open: the cluster asks nobody for a key.
	Open bool
}

// Anyone is the sender of every request to a cluster that asks for no keys; Administrator holds the master
// key.
var (
	Anyone        = Principal{Role: image.RoleAdmin, Open: true}
	Administrator = Principal{Role: image.RoleAdmin}
)

// Admin reports whether the sender may do everything.
func (p Principal) Admin() bool { return p.Role == image.RoleAdmin }

// Reads reports whether the sender may read the user's images.
func (p Principal) Reads(user string) bool {
	return p.Admin() || p.Role.OfUser() && p.User != "" && p.User == user
}

// Writes reports whether the sender may store and delete the user's images.
func (p Principal) Writes(user string) bool {
	return p.Admin() || p.Role == image.RoleWrite && p.User != "" && p.User == user
}

// String names the sender, for messages.
func (p Principal) String() string {
	switch {
	case p.Key != "" && p.User != "":
		return fmt.Sprintf("access key %s (%s of user %q)", p.Key, p.Role, p.User)
	case p.Key != "":
		return fmt.Sprintf("access key %s (%s)", p.Key, p.Role)
	case p.Node != 0:
		return fmt.Sprintf("node %d", p.Node)
	case p.Open:
		return "anyone"
	case p.Admin():
		return "the administrator"
	}
	return "a stranger"
}

type principalKey struct{}

// With returns a context that carries the sender of its request.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// From returns the sender of the request whose context it is, a stranger when nobody was put into it.
func From(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}
