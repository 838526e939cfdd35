// Package failpoint kills the process at named places of the code, as kill -9 would at that very moment, so
// that tests can crash a node between any two steps. Only programs built with the tag failpoints can do it:
// in others Enabled is a false constant, and the compiler removes calls of Here.
//
//	IMGCLUSTER_FAILPOINT=NAME[:N]
//
// in the environment of a process arms a failpoint from the start: the process kills itself when it reaches
// NAME for the N-th time.
package failpoint

import "slices"

// names are the failpoints. A name is the step that has just been done, or with "before" the next one.
var names = []string{
	// An upload, up to its record. A storing node's role is "owner" or "replica".
	"upload/owner/created", "upload/owner/encrypted", "upload/owner/durable", "upload/owner/told",
	"upload/replica/created", "upload/replica/encrypted", "upload/replica/durable", "upload/replica/told",
	"upload/standby", "upload/before-commit", "upload/committed", "upload/decided",
	"upload/before-discard", "upload/discarded", "upload/before-send", "upload/sent",

	// An image file.
	"store/created", "store/half", "store/written", "store/synced", "store/closed", "store/renamed",
	"store/committed", "store/removed",

	// A delete.
	"delete/before-propose", "delete/proposed",

	// A command in the catalog, and a shard's state as a snapshot.
	"catalog/before-commit", "catalog/committed", "catalog/before-sync", "catalog/synced",
	"catalog/snapshot-begun", "catalog/snapshot-saved", "catalog/before-replace", "catalog/replaced",

	// A missing or damaged copy.
	"repair/before-fetch", "repair/fetched", "repair/recopied", "repair/before-remove",

	// A change of the members.
	"member/before-add-replica", "member/replica-added",
	"member/before-remove-replica", "member/replica-removed",
	"member/before-settle", "member/settled", "member/before-start-shard", "member/shard-started",
	"member/before-drop-shard", "member/shard-stopped", "member/data-removed", "member/shard-dropped",
	"member/before-renew", "member/quarantined", "member/renewed", "member/identity-written",
	"member/before-admit", "member/admitted", "member/before-first-replica",

	// A change of the master key.
	"keys/persisted", "keys/resealed",
}

// Names returns the names of all failpoints.
func Names() []string { return slices.Clone(names) }
