package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// SegmentBytes is the size of a stored file's segments.
const SegmentBytes = segmentBytes

// CatalogHash is the SHA-256 of all that this node's replicas of the shards hold, with the number of
// keys, for tests that compare nodes.
func (n *Node) CatalogHash() (string, error) {
	h := sha256.New()
	keys := 0
	for _, shard := range n.shards.withSystem() {
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

// Inventory lists all records and uploads that this node's replicas hold, as JSON of []clustertest.Entry.
func (n *Node) Inventory() (string, error) {
	all := []map[string]any{}
	for _, shard := range n.shards.withSystem() {
		var bad error
		err := n.log.View(shard, func(r catalog.Reader) error {
			return r.Scan(nil, nil, func(k, v []byte) bool {
				var line map[string]any
				switch table := string(k[:1]); table {
				case "r", "u": // the tables of package catalog
					var entry any
					if table == "r" {
						entry, bad = catalog.DecodeRecord(k, v)
					} else {
						entry, bad = catalog.GetUpload(r, image.ID(k[1:]))
					}
					if bad == nil {
						v, bad = json.Marshal(entry)
					}
					if bad == nil {
						bad = json.Unmarshal(v, &line)
					}
					if bad != nil {
						return false
					}
					line["table"] = map[string]string{"r": "record", "u": "upload"}[table]
				case "i":
					_, name, _ := bytes.Cut(v, []byte{0})
					line = map[string]any{"table": "image", "id": image.ID(k[1:]).String(), "name": string(name)}
				default:
					return true
				}
				line["shard"] = shard
				delete(line, "record")
				all = append(all, line)
				return true
			})
		})
		if err = errors.Join(err, bad); err != nil {
			return "", err
		}
	}
	b, err := json.Marshal(all)
	return string(b), err
}

// UserKeyID returns the ID of the key that this node encrypts a user's images with.
func (n *Node) UserKeyID(ctx context.Context, user string) (uint32, error) {
	id, _, err := n.keys.currentKey(ctx, user)
	return id, err
}

// ProposeJoin puts a Join into the system shard's log, as only a node can that holds a certificate.
func (n *Node) ProposeJoin(ctx context.Context, j catalog.Join) error {
	r, err := n.log.Propose(ctx, systemShard, catalog.Command{Join: &j})
	if err == nil {
		err = r.Err()
	}
	return err
}

// Post asks another node, as this one.
func (n *Node) Post(ctx context.Context, id image.NodeID, path string, body []byte) ([]byte, error) {
	return n.peers.Post(ctx, id, path, body)
}

// Introduction is the Join of this node.
func (n *Node) Introduction() catalog.Join { return n.starter.Introduce() }

// Membership is the newest that this node knows.
func (n *Node) Membership() *catalog.Membership { return n.view.membership() }

// Believe has the node take a membership for the newest, as if the log had it.
func (n *Node) Believe(m *catalog.Membership) { n.view.update(m) }

// Replicas are those that this node has on its disk, by shard.
func (n *Node) Replicas() (map[uint64]catalog.Replica, error) { return n.log.c.Load().Stored() }
