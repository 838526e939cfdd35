package cluster

import (
	"crypto/sha256"
	"fmt"

	"imgcluster/cluster/catalog"
)

// SegmentBytes is the size of a stored file's segments.
const SegmentBytes = segmentBytes

// CatalogHash is the SHA-256 of all that this node's replicas of the shards hold, with the number of
// keys, for tests that compare nodes.
func (n *Node) CatalogHash() (string, error) {
	h := sha256.New()
	keys := 0
	for _, shard := range n.allShards() {
		err := n.log.View(shard, func(r catalog.Reader) error {
			return r.Scan(nil, nil, func(k, v []byte) bool {
				keys++
				fmt.Fprintf(h, "%d %q %q\n", shard, k, v)
				return true
			})
		})
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%x of %d keys", h.Sum(nil), keys), nil
}
