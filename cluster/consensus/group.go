package consensus

import (
	"context"
	"errors"

	"github.com/lni/dragonboat/v4"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// groups is what raftnet has to know of the cluster.
type groups struct{ *Consensus }

// Address implements raftnet.Cluster.
func (g groups) Address(node image.NodeID) string { return g.opts.Address(node) }

// Members implements raftnet.Cluster.
func (g groups) Members() map[image.NodeID]string { return g.opts.Members() }

// ReplicaID implements raftnet.Cluster.
func (g groups) ReplicaID(shard uint64) (replica uint64, ok bool) {
	s := g.shard(shard)
	if s == nil {
		return 0, false
	}
	return s.Replica.ID(), true
}

// NodeOf implements raftnet.Cluster.
func (groups) NodeOf(replica uint64) image.NodeID { return catalog.ReplicaOf(replica).Node }

// Group returns the replicas in a shard's Raft group, with all changes that were committed before.
// The errors are those of Read.
func (c *Consensus) Group(ctx context.Context, shard uint64) (replicas []catalog.Replica, err error) {
	var m *dragonboat.Membership
	err = c.retry(ctx, shard, func(ctx context.Context) (err error) {
		m, err = c.host.SyncGetShardMembership(ctx, shard)
		return err
	})
	if err != nil {
		return nil, err
	}
	for id := range m.Nodes {
		replicas = append(replicas, catalog.ReplicaOf(id))
	}
	return replicas, nil
}

// addresses returns the Raft addresses of the nodes in the groups that this node is in.
func (c *Consensus) addresses() map[image.NodeID]string {
	all := map[image.NodeID]string{}
	for _, s := range c.host.GetNodeHostInfo(dragonboat.NodeHostInfoOption{SkipLogInfo: true}).ShardInfoList {
		for id, address := range s.Replicas {
			all[catalog.ReplicaOf(id).Node] = address
		}
	}
	return all
}

// replicaOn returns the ID of a node's replica of a shard.
func (c *Consensus) replicaOn(shard uint64, node image.NodeID) (replica uint64, ok bool) {
	for _, s := range c.host.GetNodeHostInfo(dragonboat.NodeHostInfoOption{SkipLogInfo: true}).ShardInfoList {
		for id := range s.Replicas {
			if s.ShardID == shard && catalog.ReplicaOf(id).Node == node {
				replica, ok = max(replica, id), true
			}
		}
	}
	return replica, ok
}

// AddReplica adds a replica to a shard's Raft group; address is that of its node's Raft transport. The group
// is changed only if stillWanted returns nil and nobody else changes it meanwhile: a node with an old layout
// could otherwise remove a replica that was added since, and a removal is final. stillWanted may be called
// again.
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

// changeGroup reads the group before each attempt, because one that timed out may have been committed, and
// only then asks whether the change is still wanted: a newer decision that comes later finds the group
// unchanged, or its change makes this one fail.
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
