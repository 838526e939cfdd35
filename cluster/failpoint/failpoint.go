// Package failpoint has places at which a process can be told to die, as kill -9 would have it at
// that very moment. Only programs built with the tag failpoints have them: in others Enabled is a
// false constant, and the compiler leaves nothing of a Here.
//
//	IMGCLUSTER_FAILPOINT=NAME[:N]
//
// in the environment of a process arms it at once: it dies when it comes to NAME for the N-th time.
package failpoint

import "slices"

// The steps at which a process can die. A name says what has just been done, or with "before" what
// comes next.
var names = []string{
	// An upload, on its way to its record. The part of a storing node is "owner" or "replica".
	"upload/before-assign", "upload/assigned",
	"upload/owner/created", "upload/owner/encrypted", "upload/owner/durable", "upload/owner/told",
	"upload/replica/created", "upload/replica/encrypted", "upload/replica/durable", "upload/replica/told",
	"upload/standby", "upload/decided", "upload/before-reassign", "upload/reassigned", "upload/before-discard", "upload/discarded",
	"upload/before-send", "upload/sent",

	// A file.
	"store/created", "store/half", "store/written", "store/synced", "store/closed", "store/renamed", "store/committed", "store/removed",

	// A delete.
	"delete/before-propose", "delete/proposed",

	// A command in the catalog, and a shard's state as a snapshot.
	"catalog/before-commit", "catalog/committed", "catalog/before-sync", "catalog/synced",
	"catalog/snapshot-begun", "catalog/snapshot-saved", "catalog/before-replace", "catalog/replaced",

	// A missing or damaged copy.
	"repair/before-fetch", "repair/fetched", "repair/recopied", "repair/before-remove",

	// A change of the members.
	"member/before-add-replica", "member/replica-added", "member/before-remove-replica", "member/replica-removed",
	"member/before-settle", "member/settled", "member/before-start-shard", "member/shard-started",
	"member/before-drop-shard", "member/shard-stopped", "member/data-removed", "member/shard-dropped",
	"member/before-renew", "member/put-aside", "member/renewed", "member/identity-written", "member/before-admit", "member/admitted", "member/before-first-replica",
}

// Names lists all places, in order.
func Names() []string { return slices.Clone(names) }
