package cluster

import (
	"context"
	"slices"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// system is the system shard as a Reconciler knows it.
type system struct {
	log  *shardLogs
	view *view
}

// Newest implements membership.System.
func (s system) Newest(ctx context.Context) (*catalog.Membership, error) {
	m, err := s.view.newest(ctx)
	if err == nil {
		s.view.update(m)
	}
	return m, err
}

// Settle implements membership.System.
func (s system) Settle(ctx context.Context, step catalog.Settle) error {
	r, err := s.log.Propose(ctx, systemShard, catalog.Command{Settle: &step})
	if err == nil && image.KindOf(r.Err()) != image.KindStale {
		err = r.Err()
	}
	return err
}

// unused reports whether nothing of a shard needs what is stored on a node, nor will.
func (s system) unused(
	ctx context.Context, shard uint64, l *catalog.Layout, node image.NodeID,
) (free bool, err error) {
	if slices.Contains(catalog.NodesOf(l.Nodes), node) || shard == systemShard {
		return true, nil
	}
	if free, err = s.empty(shard, node); err != nil || !free {
		return free, err
	}
	// Nor does an upload on its way that the node has reported a copy of.
	if _, err := s.log.Do(ctx, shard, catalog.Command{Restart: &catalog.Restart{Node: node}}); err != nil {
		return false, err
	}
	return s.empty(shard, node)
}

// empty reports whether no record of a shard names a copy on a node.
func (s system) empty(shard uint64, node image.NodeID) (is bool, err error) {
	t, err := catalog.ViewTotals(s.log.View, shard)
	if err != nil {
		return false, err
	}
	stored := t.Nodes[node]
	return stored == nil || stored.Stored.Images == 0, nil
}
