package consensus

import (
	"context"
	"errors"

	"github.com/lni/dragonboat/v4"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// Group returns the replicas in a shard's Raft group, with all changes that were committed before.
// The errors are those of Read.
func (c *Consensus) Group(ctx context.Context, shard uint64) (replicas []catalog.Replica, err error) {
	m, err := c.group(ctx, shard)
	if err != nil {
		return nil, err
	}
	for id := range m.Nodes {
		replicas = append(replicas, catalog.ReplicaOf(id))
	}
	return replicas, nil
}

func (c *Consensus) group(ctx context.Context, shard uint64) (m *dragonboat.Membership, err error) {
	err = c.retry(ctx, shard, func(ctx context.Context) (err error) {
		m, err = c.host.SyncGetShardMembership(ctx, shard)
		return err
	})
	return m, err
}

// AddReplica takes a replica into a shard's Raft group; address is that of its node's Raft transport.
// The group is only changed when stillWanted returns nil, and not when others change it meanwhile: a node
// that goes by what held before would take a replica out that came since, and that for ever. stillWanted
// may be called again.
func (c *Consensus) AddReplica(
	ctx context.Context, shard uint64, r catalog.Replica, address string,
	stillWanted func(context.Context) error,
) error {
	return c.changeGroup(ctx, shard, stillWanted, func(ctx context.Context, m *dragonboat.Membership) error {
		if _, removed := m.Removed[r.ID()]; removed {
			return image.Errorf(image.KindStale, "replica %d of node %d was taken out of shard %d, for ever",
				r.Number, r.Node, shard)
		}
		if m.Nodes[r.ID()] != "" {
			return nil
		}
		return c.host.SyncRequestAddReplica(ctx, shard, r.ID(), address, m.ConfigChangeID)
	})
}

// RemoveReplica takes a replica out of a shard's Raft group, for ever. stillWanted is that of AddReplica.
func (c *Consensus) RemoveReplica(
	ctx context.Context, shard uint64, r catalog.Replica, stillWanted func(context.Context) error,
) error {
	return c.changeGroup(ctx, shard, stillWanted, func(ctx context.Context, m *dragonboat.Membership) error {
		if m.Nodes[r.ID()] == "" {
			return nil
		}
		return c.host.SyncRequestDeleteReplica(ctx, shard, r.ID(), m.ConfigChangeID)
	})
}

// changeGroup reads the group before each attempt: one that timed out may have been committed. After
// that it asks whether the change is still wanted: a newer decision then changes a group that this one did
// not change, or has it refuse this change.
func (c *Consensus) changeGroup(
	ctx context.Context, shard uint64, stillWanted func(context.Context) error,
	change func(context.Context, *dragonboat.Membership) error,
) error {
	return c.retry(ctx, shard, func(ctx context.Context) error {
		m, err := c.host.SyncGetShardMembership(ctx, shard)
		if err == nil {
			err = stillWanted(ctx)
		}
		if err != nil {
			return err
		}
		if err = change(ctx, m); errors.Is(err, dragonboat.ErrRejected) { // another change came first
			err = dragonboat.ErrShardNotReady
		}
		return err
	})
}
