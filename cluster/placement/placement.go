// Package placement decides which node owns an image, which nodes store it, and which nodes hold a shard. It
// is pure: loads in, an order of nodes out. The deciding leader calls it once for an upload and puts the
// result into the command, so that no other node has to compute it.
//
// Nodes are ranked for each image by rendezvous hashing (Thaler and Ravishankar, 1998), and the owner is
// the first node in that rank whose load allows it: consistent hashing with bounded loads (Mirrokni,
// Thorup, Zadimoghaddam, 2016), with the tightest bound by images that there is, and a looser one by bytes;
// see the type table. On three nodes six images in ten go to the first node in their rank.
//
// A node that returns with far fewer images than the others gets every image until it has caught up. That
// keeps the shares equal. A caller that wants it to catch up more slowly must even out the loads that it
// passes.
package placement

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"

	"imgcluster/cluster/image"
)

// candidatesMax is the largest number of candidates of one decision.
const candidatesMax = 64

// Load is what is assigned to a node: a number of images and their plaintext bytes.
type Load struct{ Images, Bytes int64 }

// Candidate is a live node and what is assigned to it so far, decisions in flight included.
type Candidate struct {
	ID     image.NodeID
	Owned  Load // images that it owns
	Stored Load // images that it stores a copy of, those that it owns included
}

// Rank returns the nodes in the order in which an image prefers them, by rendezvous hashing. The order of
// two nodes does not depend on the others.
func Rank(user, name string, nodes []image.NodeID) []image.NodeID {
	key := imageKey(user, name)
	ranked := slices.Clone(nodes)
	slices.SortFunc(ranked, func(a, b image.NodeID) int { return byScore(key, a, b) })
	return ranked
}

// byScore orders by descending score. Of equal scores, one pair in 2^64, the lower node ID is first.
func byScore(key uint64, a, b image.NodeID) int {
	return cmp.Or(cmp.Compare(score(key, b), score(key, a)), cmp.Compare(a, b))
}

// imageKey hashes an image's full name. No name contains a zero byte.
func imageKey(user, name string) uint64 {
	var d xxhash.Digest
	d.Reset()
	d.WriteString(user)
	d.Write([]byte{0})
	d.WriteString(name)
	return d.Sum64()
}

// Suffixes of the hashed bytes, which make ranks and shards independent of each other.
const (
	forRank  = 'r'
	forShard = 's'
)

func score(key uint64, node image.NodeID) uint64 {
	var b [13]byte
	binary.LittleEndian.PutUint64(b[:], key)
	binary.LittleEndian.PutUint32(b[8:], uint32(node))
	b[12] = forRank
	return xxhash.Sum64(b[:])
}

// Shard returns the index, from 0 to shards-1, of the shard that keeps an image's record. Each shard has an
// equal slice of the hash space. When shards is less than 1 it returns 0.
func Shard(user, name string, shards int) int {
	if shards < 1 {
		return 0
	}
	var b [9]byte
	binary.LittleEndian.PutUint64(b[:], imageKey(user, name))
	b[8] = forShard
	slice, _ := bits.Mul64(xxhash.Sum64(b[:]), uint64(shards))
	return int(slice)
}

// Place orders all candidates for an image of size plaintext bytes: first the owner, then the nodes that
// store the other copies, then the standbys. The first replicas of them store it, or all when there are
// fewer. Its errors are of type *image.Error.
func Place(user, name string, size int64, nodes []Candidate, replicas int) ([]image.NodeID, error) {
	key := imageKey(user, name)
	left := slices.Clone(nodes)
	slices.SortFunc(left, func(a, b Candidate) int { return byScore(key, a.ID, b.ID) })
	if err := check(size, left, replicas); err != nil {
		return nil, err
	}
	order := make([]image.NodeID, 0, len(left))
	take := func(i int) {
		order = append(order, left[i].ID)
		left = slices.Delete(left, i, i+1)
	}

	take(newTable(left, size, ownedLoad).choose(left))
	for len(order) < min(replicas, len(nodes)) {
		take(newTable(left, size, storedLoad).choose(left))
	}
	for len(left) > 0 {
		take(0)
	}
	return order, nil
}

// check refuses what cannot be placed. In ranked order, equal nodes are neighbours.
func check(size int64, ranked []Candidate, replicas int) error {
	switch {
	case size < 0:
		return image.Errorf(image.KindInvalid, "an image of %d bytes cannot be placed", size).
			WithHint("send its length")
	case replicas < 1:
		return image.Errorf(image.KindInternal, "%d replicas of an image cannot be placed", replicas).
			WithHint("set cluster.replicas to 1 or more")
	case len(ranked) == 0:
		return image.Errorf(image.KindNoQuorum, "no live node can take the image").
			WithHint("start a node, or end the draining of one")
	case len(ranked) > candidatesMax:
		return image.Errorf(image.KindInternal,
			"%d nodes are too many for one image; the limit is %d", len(ranked), candidatesMax).
			WithHint("give each shard fewer nodes")
	}
	for i := range ranked[1:] {
		if ranked[i].ID == ranked[i+1].ID {
			return image.Errorf(image.KindInternal, "node %d is twice among the candidates", ranked[i].ID).
				WithHint("see the list of members")
		}
	}
	return nil
}
