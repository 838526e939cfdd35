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

// unused reports whether nothing of a shard needs what is stored on a node.
func (s system) unused(shard uint64, l *catalog.Layout, node image.NodeID) (free bool, err error) {
	if slices.Contains(catalog.NodesOf(l.Nodes), node) || shard == systemShard {
		return true, nil
	}
	err = s.log.View(shard, func(r catalog.Reader) error {
		t, err := catalog.GetTotals(r)
		if err != nil {
			return err
		}
		pending, err := catalog.PendingUploads(r)
		stored := t.Nodes[node]
		free = (stored == nil || stored.Stored.Images == 0) &&
			!slices.ContainsFunc(pending, func(u *catalog.Upload) bool { return u.Slot(node) != nil })
		return err
	})
	return free, err
}
