package image

import (
	"slices"
	"strings"
)

// Role says what the holder of an access key may do.
type Role string

// The roles. Read and Write are about the images of the key's own user.
const (
	RoleRead    Role = "read"    // read and list
	RoleWrite   Role = "write"   // read, list, store and delete
	RoleAdmin   Role = "admin"   // everything
	RoleMetrics Role = "metrics" // the figures of /metrics
)

// Roles are all roles.
var Roles = []Role{RoleRead, RoleWrite, RoleAdmin, RoleMetrics}

// OfUser reports whether a key of this role must belong to a user.
func (r Role) OfUser() bool { return r == RoleRead || r == RoleWrite }

// CheckRole refuses what is no role, and a role of a user's without one.
func CheckRole(role Role, user string) error {
	if !slices.Contains(Roles, role) {
		names := make([]string, len(Roles))
		for i, r := range Roles {
			names[i] = string(r)
		}
		return Errorf(KindInvalid, "%.40q is not a role", role).
			WithHint("give one of " + strings.Join(names, ", "))
	}
	if user == "" && role.OfUser() {
		return Errorf(KindInvalid, "a key of the role %s belongs to a user, and none is named", role).
			WithHint("name the user whose images it is for")
	}
	if user == "" {
		return nil
	}
	return CheckUser(user)
}
