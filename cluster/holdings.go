package cluster

import (
	"context"
	"slices"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/read"
	"imgcluster/cluster/repair"
	"imgcluster/cluster/wire"
)

// holdings answer what peers ask this node for: its copies and its shards.
type holdings struct {
	self    image.NodeID
	shards  shardIDs
	images  *read.Images
	log     *shardLogs
	serving *serving
	repair  *repair.Service
}

// OpenCopy implements api.Peers.
func (h *holdings) OpenCopy(f image.FileID) (wire.Content, error) { return h.images.OpenCopy(f) }

// Suspect implements api.Peers.
func (h *holdings) Suspect(user, name string) error {
	var rec *image.Record
	err := h.log.View(h.shards.of(user, name), func(r catalog.Reader) (err error) {
		rec, err = catalog.GetRecord(r, user, name)
		return err
	})
	if err == nil && rec != nil {
		h.repair.Suspect(rec, h.self)
	}
	return err
}

// ListShards implements api.Peers.
func (h *holdings) ListShards(
	ctx context.Context, shards []uint64, user, prefix, after string, limit int,
) (wire.List, error) {
	if err := h.check(shards); err != nil {
		return wire.List{}, err
	}
	return h.images.ListShards(ctx, shards, user, prefix, after, limit)
}

// check refuses shards that this node does not serve.
func (h *holdings) check(shards []uint64) error {
	for _, shard := range shards {
		switch {
		case !slices.Contains(h.shards, shard):
			return image.Errorf(image.KindInvalid, "%d is not a data shard", shard).
				WithHint("GET /v1/cluster lists the shards; the first is not one of them")
		case !h.serving.has(shard):
			return image.Errorf(image.KindNoQuorum, "shard %d is not on node %d, or not up to date",
				shard, h.self).
				WithHint("ask a node that GET /v1/cluster lists for the shard").WithRetry(time.Second)
		}
	}
	return nil
}

// OldCopies implements api.Peers.
func (h *holdings) OldCopies(ctx context.Context, q wire.OldCopiesQuery) (wire.OldCopies, error) {
	if err := h.check(q.Shards); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, h.images.Timeout)
	defer cancel()
	all := wire.OldCopies{}
	for _, shard := range q.Shards {
		err := h.log.Read(ctx, shard, func(r catalog.Reader) error {
			old, err := catalog.OldCopies(r, q.User, q.Key)
			for id, n := range old {
				all[id] += n
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}
