package consensus

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/lni/dragonboat/v4/raftpb"

	"imgcluster/crypto"
)

// What is sealed where: bound to it, so that nothing is taken for something else.
const (
	sealedValue = "catalog value "
	sealedEntry = "Raft log entry "
)

// Sealer seals values and opens them again: a crypto.Sealer, or a crypto.RingSealer, whose key may change.
type Sealer interface {
	Seal(plaintext, ad []byte) []byte
	Open(sealed, ad []byte) ([]byte, error)
}

// sealValue seals a value of the catalog, bound to its key in the database.
func sealValue(s Sealer, key, value []byte) []byte {
	return s.Seal(value, append([]byte(sealedValue), key...))
}

// openValue is the inverse of sealValue.
func openValue(s Sealer, key, sealed []byte) ([]byte, error) {
	value, err := s.Open(sealed, append([]byte(sealedValue), key...))
	if err != nil {
		return nil, fmt.Errorf("a value of shard %d in the catalog: %w", shardOf(key), err)
	}
	return value, nil
}

// shardOf returns the shard that a key of the database belongs to.
func shardOf(key []byte) uint64 { return binary.BigEndian.Uint64(key) }

// isState reports whether a key of the database is one of Apply's. Only their values are sealed: the others
// are indexes and addresses.
func isState(key []byte) bool { return len(key) > 8 && key[8] == sectionState }

// sealEntries returns the updates with the commands of their entries sealed. Their entries go to other nodes
// too, so they are not changed.
func sealEntries(s *crypto.Sealer, updates []raftpb.Update) []raftpb.Update {
	updates = slices.Clone(updates)
	for i, u := range updates {
		entries := slices.Clone(u.EntriesToSave)
		for k, e := range entries {
			if len(e.Cmd) > 0 {
				entries[k].Cmd = s.Seal(e.Cmd, entryPlace(u.ShardID, u.ReplicaID, e))
			}
		}
		updates[i].EntriesToSave = entries
	}
	return updates
}

// openEntries opens the commands of entries of a replica's log, in place.
func openEntries(s *crypto.Sealer, shard, replica uint64, entries []raftpb.Entry) error {
	for i, e := range entries {
		if len(e.Cmd) == 0 {
			continue
		}
		cmd, err := s.Open(e.Cmd, entryPlace(shard, replica, e))
		if err != nil {
			return fmt.Errorf("entry %d of the Raft log of shard %d: %w", e.Index, shard, err)
		}
		entries[i].Cmd = cmd
	}
	return nil
}

// entryPlace is what a sealed entry is bound to.
func entryPlace(shard, replica uint64, e raftpb.Entry) []byte {
	b := []byte(sealedEntry)
	for _, n := range []uint64{shard, replica, e.Index, e.Term} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}
