package cluster

import (
	"hash/maphash"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// knownFiles is a set of files in bounded memory: a Bloom filter (Bloom, Space/time trade-offs in hash coding
// with allowable errors, 1970). It has every file that was added, and by mistake a few others: 0.2 % of them
// up to 4 million files, 1.4 % at 7 million, 26 % at 21 million, other ones in each set.
type knownFiles struct {
	seed maphash.Seed
	bits []uint64
}

const (
	knownBits    = 16       // of the filter for each file, while that is not too much
	knownBitsMin = 1 << 10  // of a filter
	knownBitsMax = 64 << 20 // of a filter: 8 MiB
	knownHashes  = 4        // bits that a file sets
)

// newKnownFiles returns an empty set for so many files.
func newKnownFiles(files int64) *knownFiles {
	bits := knownBits * min(max(files, knownBitsMin/knownBits), knownBitsMax/knownBits)
	return &knownFiles{maphash.MakeSeed(), make([]uint64, (bits+63)/64)}
}

// each calls fn with the places of a file's bits, until fn returns false.
func (k *knownFiles) each(f image.FileID, fn func(word int, bit uint64) bool) {
	h := maphash.Comparable(k.seed, f)
	first, step := h&(1<<32-1), h>>32|1
	for i := range uint64(knownHashes) {
		at := (first + i*step) % uint64(64*len(k.bits))
		if !fn(int(at/64), 1<<(at%64)) {
			return
		}
	}
}

func (k *knownFiles) add(f image.FileID) {
	k.each(f, func(word int, bit uint64) bool { k.bits[word] |= bit; return true })
}

func (k *knownFiles) has(f image.FileID) (has bool) {
	k.each(f, func(word int, bit uint64) bool { has = k.bits[word]&bit != 0; return has })
	return has
}

// known returns the files of this node that records name. To go through all records in their order takes a
// tenth of the time of looking each file up.
func (u *references) known() (*knownFiles, error) {
	shards, files := u.serving.data(), int64(0)
	for _, shard := range shards {
		t, err := catalog.ViewTotals(u.log.View, shard)
		if err != nil {
			return nil, err
		}
		if n := t.Nodes[u.self]; n != nil {
			files += n.Stored.Images
		}
	}
	k := newKnownFiles(files)
	for _, shard := range shards {
		err := catalog.EachFile(u.log.View, shard, u.self, func(f image.FileID) error { k.add(f); return nil })
		if err != nil {
			return nil, err
		}
	}
	return k, nil
}
