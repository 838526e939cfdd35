package consensus

import (
	_ "unsafe" // for go:linkname

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
)

// This file has all uses of go:linkname: two functions of dragonboat's internal packages, called by their
// linker names, and a variable of it.
//
// Why: logDB wraps the library's own log to update the witness with each write, and to refuse at a start a
// log that has lost something. The library takes another log (config.LogDBFactory) but exports no way to make
// its own one, nor to check a snapshot's file, so that the alternative to the first is a fork or a log of
// our own, and to the second a process that ends when the damaged file is read later.
//
// What breaks them: a version of dragonboat in which a function moves, is renamed or has other parameters.
// Where it is not found, the linker says "relocation target not defined". Changed parameters are not noticed
// and go wrong at run time: compare both signatures when the version in go.mod changes. Go's linker refuses
// such names only for the standard library (-checklinkname), not for modules.
//
// What would end them: dragonboat exporting a default config.LogDBFactory, as its package plugin/tan does for
// the other log, and a check of a snapshot's file, such as one in its package tools.

// newDefaultLogDB makes dragonboat's own log.
//
//go:linkname newDefaultLogDB github.com/lni/dragonboat/v4/internal/logdb.NewDefaultLogDB
func newDefaultLogDB(config.NodeHostConfig, config.LogDBCallback, []string, []string) (raftio.ILogDB, error)

// isShrunkSnapshotFile is dragonboat's look into a snapshot, which checks what it reads. A snapshot of
// this program's shards has nothing in it once it was applied.
//
//go:linkname isShrunkSnapshotFile github.com/lni/dragonboat/v4/internal/rsm.IsShrunkSnapshotFile
func isShrunkSnapshotFile(path string, fs config.IFS) (bool, error)

// streamConnections is how many connections dragonboat has to each node, over which its shards are spread.
//
//go:linkname streamConnections github.com/lni/dragonboat/v4.streamConnections
var streamConnections uint64

// One connection carries what all shards have for a node at a time in one write: an idle node of 13 shards,
// with heartbeats of each every 100 ms, then writes 54 times a second, and not 180 times.
func init() { streamConnections = 1 }
