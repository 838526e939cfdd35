package raftnet

import (
	"fmt"
	"path"
	"slices"

	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"

	"imgcluster/cluster/image"
)

// The library trusts what it is given: it panics on a message to replica 0, on a type that is meant for its
// own use, and on an address that is not the one it knows; it writes the file that a part of a snapshot
// names, and keeps the address of whoever sends. So all that a node sends is compared with its certificate
// before. What terms and indexes mean is left to Raft.

// fromPeers are the types of messages that replicas send each other. The others are the library's own
// (InstallSnapshot comes in parts, see checkChunk), or of features that are off (Quiesce).
var fromPeers = []raftpb.MessageType{
	raftpb.NoOP,
	raftpb.Propose, // forwarded to the leader, as are ReadIndex and LeaderTransfer
	raftpb.Replicate, raftpb.ReplicateResp,
	raftpb.RequestVote, raftpb.RequestVoteResp,
	raftpb.Heartbeat, raftpb.HeartbeatResp,
	raftpb.ReadIndex, raftpb.ReadIndexResp,
	raftpb.SnapshotReceived,
	raftpb.LeaderTransfer,
	raftpb.TimeoutNow,
	raftpb.RateLimit,
	raftpb.RequestPreVote, raftpb.RequestPreVoteResp,
}

// protocolError says what a node has sent that no node sends.
type protocolError struct{ what string }

// Error implements error.
func (e *protocolError) Error() string { return e.what }

func violation(format string, args ...any) error { return &protocolError{fmt.Sprintf(format, args...)} }

// decode decodes a message. The library's decoders panic on some that were cut.
func decode(m interface{ Unmarshal([]byte) error }, b []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = violation("a message that is not decoded: %v", p)
		}
	}()
	if m.Unmarshal(b) != nil {
		return violation("a message that is not decoded")
	}
	return nil
}

// checkBatch compares a batch with the node that it came from, and takes out what is not for a replica of
// this node: it may be for one that was here before.
func (t *Transport) checkBatch(from image.NodeID, m *raftpb.MessageBatch) error {
	if err := t.checkSource(from, m.DeploymentId, m.BinVer); err != nil {
		return err
	}
	if err := t.checkAddress(from, m.SourceAddress); err != nil {
		return err
	}
	for i := range m.Requests {
		r := &m.Requests[i]
		switch {
		case !slices.Contains(fromPeers, r.Type):
			return violation("a message of type %d", r.Type)
		case t.Cluster.NodeOf(r.From) != from:
			return violation("a message of replica %x, which is another node's", r.From)
		}
	}
	m.Requests = slices.DeleteFunc(m.Requests, func(r raftpb.Message) bool { return !t.isOwn(r.ShardID, r.To) })
	return nil
}

// isOwn reports whether a replica is this node's of that shard.
func (t *Transport) isOwn(shard, replica uint64) bool {
	own, ok := t.Cluster.ReplicaID(shard)
	return ok && own == replica
}

func (t *Transport) checkSource(from image.NodeID, deployment uint64, version uint32) error {
	if deployment != t.deployment {
		return violation("node %d is of another cluster with the same name and master key", from)
	}
	if version != raftio.TransportBinVersion {
		return violation("node %d sends version %d of Raft's messages, not %d", from, version,
			raftio.TransportBinVersion)
	}
	return nil
}

// checkAddress refuses an address that is not the one of the node which sends it. A node that is not a member
// as far as this one knows may be a new one; it keeps its first address, unless a member has that.
func (t *Transport) checkAddress(from image.NodeID, address string) error {
	if known := t.Cluster.Address(from); known != "" {
		if address != known {
			return violation("node %d sends as %.100q, its address is %s", from, address, known)
		}
		return nil
	}
	members := t.Cluster.Members()
	t.mu.Lock()
	defer t.mu.Unlock()
	known := t.strangers[from]
	if known == "" && validAddress(address) &&
		nodeAt(members, address) == 0 && nodeAt(t.strangers, address) == 0 {
		t.strangers[from] = address
		known = address
	}
	if address != known {
		return violation("node %d, which is no member yet, sends as %.100q", from, address)
	}
	return nil
}

// nodeAt returns the node that has an address, 0 when none has.
func nodeAt(addresses map[image.NodeID]string, address string) image.NodeID {
	for id, a := range addresses {
		if a == address {
			return id
		}
	}
	return 0
}

// nodeAt returns the node that is known to have an address, 0 when none is.
func (t *Transport) nodeAt(address string) image.NodeID {
	if id := nodeAt(t.Cluster.Members(), address); id != 0 {
		return id
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return nodeAt(t.strangers, address)
}

// checkChunk compares a part of a snapshot with the node that it came from. Snapshots of this program are one
// file, which has the name that the library gives it.
func (t *Transport) checkChunk(from image.NodeID, c *raftpb.Chunk) error {
	if err := t.checkSource(from, c.DeploymentId, c.BinVer); err != nil {
		return err
	}
	switch file := fmt.Sprintf("snapshot-%016X.gbsnap", c.Index); {
	case t.Cluster.NodeOf(c.From) != from:
		return violation("a snapshot of replica %x, which is another node's", c.From)
	case c.HasFileInfo || c.Witness || c.IsPoisonChunk() || c.FileChunkId != c.ChunkId:
		return violation("a part of a snapshot that this program does not make")
	case path.Base(c.Filepath) != file:
		return violation("a part of a snapshot for the file %.100q", c.Filepath)
	case !t.isOwn(c.ShardID, c.ReplicaID):
		return errChunkRefused
	}
	return nil
}
