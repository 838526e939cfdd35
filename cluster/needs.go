package cluster

import (
	"fmt"
	"path/filepath"
	"strings"

	"go.uber.org/zap"

	"imgcluster/cluster/bootstrap"
	"imgcluster/cluster/consensus"
	"imgcluster/cluster/hostinfo"
	"imgcluster/cluster/image"
	"imgcluster/cluster/oserr"
	"imgcluster/cluster/peer"
	"imgcluster/cluster/placement"
	"imgcluster/config"
)

// What a node needs beside what its configuration names. The figures in brackets were measured, with three
// nodes, at rest and with 24 relayed uploads at once; the rest is margin.
const (
	filesAtRest   = 64 // log, locks, folders, ports, the program's own (35)
	filesOfRaft   = 128
	filesOfPeer   = peer.IdleConnections + 16 // kept-alive connections, Raft's, the stream of figures (15)
	filesOfUpload = 1 + placement.ShardNodes
	filesOfClient = 2 // its connection, and the file or the node that it reads from

	// addressSpace is what the program reserves and mostly does not use (2.1 GiB); limits.memory_bytes come on
	// top.
	addressSpace = 2560 << 20

	// What a start writes before the node can tell that its disk is full: the first one makes all folders
	// (348 names, 9 MB), a later one new logs and manifests (15 names, below 1 MB).
	firstStartInodes, startInodes = 512, 64
	firstStartBytes, startBytes   = 32 << 20, 8 << 20
)

// filesNeeded is how many descriptors a node has open at most.
func filesNeeded(cfg *config.Config) int64 {
	peers := len(cfg.Cluster.Nodes) - 1
	return filesAtRest + filesOfRaft + consensus.OpenTablesMax + int64(peers)*filesOfPeer +
		int64(uploadsHeld(cfg))*filesOfUpload + int64(cfg.Limits.Connections+connectionsReserve)*filesOfClient
}

// preflight refuses to start a node where it would run out of something later, in the middle of its work.
// Nothing was opened or made before.
func preflight(cfg *config.Config, self image.NodeID, logger *zap.Logger) error {
	dir := cfg.DataDir(self)
	have, err := hostinfo.LimitsOf(dir)
	if err != nil {
		return bootstrap.Refuse(oserr.Hint(err, dir), "data directory %s: %v", dir, err)
	}
	if want := int64(cfg.Limits.MemoryBytes); have.MemoryFree < want && have.Memory >= want {
		logger.Warn("little memory is free", zap.Int64("free_bytes", have.MemoryFree),
			zap.Stringer("limits.memory_bytes", cfg.Limits.MemoryBytes),
			zap.String("hint", "end other programs, or lower limits.memory_bytes and limits.staging_bytes"))
	}
	return lacking(cfg, self, have, !bootstrap.Claimed(dir))
}

// Need is something of its machine that a node needs.
type Need struct {
	What        string // in a word or two
	Has, Wanted int64  // files, bytes or inodes
	Reason      string // what is too little, in words that say both
	Hint        string // what to do where it is
}

// Lacks reports whether there is too little of it.
func (n Need) Lacks() bool { return n.Has < n.Wanted }

// Needs returns what a node needs of this machine, and what it has of that.
func Needs(cfg *config.Config, id image.NodeID) ([]Need, error) {
	dir := cfg.DataDir(id)
	have, err := hostinfo.LimitsOf(dir)
	if err != nil {
		return nil, bootstrap.Refuse(oserr.Hint(err, dir), "data directory %s: %v", dir, err)
	}
	return needs(cfg, id, have, !bootstrap.Claimed(dir)), nil
}

// needs compares what a node needs with what it has.
func needs(cfg *config.Config, id image.NodeID, have hostinfo.Limits, first bool) (all []Need) {
	add := func(what string, has, wanted int64, form, hint string, args ...any) {
		all = append(all, Need{what, has, wanted, fmt.Sprintf(form, has, wanted), fmt.Sprintf(hint, args...)})
	}
	files := filesNeeded(cfg)
	fewer := ""
	less := int64(cfg.Limits.Connections) - (files-have.OpenFiles+filesOfClient-1)/filesOfClient
	if less >= connectionsMin {
		fewer = fmt.Sprintf(", or lower limits.connections to %d", less)
	}
	add("open files", have.OpenFiles, files, "it may have %d open files and needs %d",
		"raise the hard limit of open files to %d (ulimit -Hn, LimitNOFILE= of systemd, "+
			"--ulimit nofile= of Docker)%s", files, fewer)
	memory := int64(cfg.Limits.MemoryBytes)
	add("memory", have.Memory, memory, "it may have %d bytes of memory and needs %d (limits.memory_bytes)",
		"raise the memory limit of its control group (MemoryMax= of systemd, --memory of Docker), "+
			"or lower limits.memory_bytes and limits.staging_bytes")
	add("address space", have.AddressSpace, addressSpace+memory,
		"it may have %d bytes of address space and needs %d",
		"raise ulimit -v or leave it out (LimitAS=infinity of systemd): it does not limit memory in use")
	inodes, bytes := int64(startInodes), int64(startBytes)
	if first {
		inodes, bytes = firstStartInodes, firstStartBytes
	}
	dir := cfg.DataDir(id)
	room := "make room on the file system of " + have.Place
	if !first {
		room += fmt.Sprintf(" (of the node's own files only those in %s and in %s may go)",
			filepath.Join(dir, "quarantine"), filepath.Join(dir, "images", "tmp"))
	}
	add("room", have.Bytes, bytes, "the disk has %d free bytes and a start needs %d", "%s", room)
	add("inodes", have.Inodes, inodes, "the file system has %d free inodes and a start needs %d",
		"%s: remove files, or give it more inodes (mkfs -N)", room)
	return all
}

// lacking names all that is too little of what a node needs.
func lacking(cfg *config.Config, id image.NodeID, have hostinfo.Limits, first bool) error {
	var reasons, hints []string
	for _, n := range needs(cfg, id, have, first) {
		if n.Lacks() {
			reasons = append(reasons, n.Reason)
			hints = append(hints, n.Hint)
		}
	}
	if reasons == nil {
		return nil
	}
	return bootstrap.Refuse(strings.Join(hints, "; "), "node %d cannot run here: %s", id,
		strings.Join(reasons, "; "))
}

// connectionsMin are the fewest connections that a configuration may allow.
const connectionsMin = 4
