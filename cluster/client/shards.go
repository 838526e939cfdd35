package client

import (
	"cmp"
	"context"
	"slices"

	"imgcluster/cluster/image"
	"imgcluster/cluster/placement"
	"imgcluster/cluster/wire"
)

// shardMap has the nodes that hold each data shard, as a node reported them.
type shardMap []shardNodes // in the order of the shards' IDs

type shardNodes struct {
	nodes     []Node
	broadcast string // their IDs, as wire.BroadcastField has them
}

func newShardNodes(nodes []Node) shardNodes {
	ids := make([]image.NodeID, len(nodes))
	for i, n := range nodes {
		ids[i] = n.ID
	}
	return shardNodes{nodes, wire.FormatNodes(ids)}
}

// holders returns the nodes that a broadcast of an image goes to. Where all nodes hold all shards no
// map is needed, and none is asked for until a node answers that it does not hold a shard.
func (c *Client) holders(ctx context.Context, user, name string) shardNodes {
	m := c.shards.Load()
	if m == nil && len(c.o.Nodes) > placement.ShardNodes || c.stale.Load() {
		c.refresh(ctx)
		m = c.shards.Load()
	}
	if m == nil {
		return c.allNodes
	}
	return (*m)[placement.Shard(user, name, len(*m))]
}

// refresh asks for the shard map. Without an answer the old one stays.
func (c *Client) refresh(ctx context.Context) {
	c.stale.Store(false)
	status, err := c.Cluster(ctx)
	if err != nil {
		c.stale.Store(true)
		return
	}
	addresses := map[image.NodeID]string{}
	for _, n := range status.Nodes {
		addresses[n.ID] = n.API
	}
	slices.SortFunc(status.Shards, func(a, b wire.ShardStatus) int { return cmp.Compare(a.ID, b.ID) })
	var m shardMap
	for i, s := range status.Shards {
		if i == 0 { // the system shard has no images
			continue
		}
		var nodes []Node
		for _, id := range s.Nodes {
			if addresses[id] != "" {
				nodes = append(nodes, Node{ID: id, Addr: addresses[id]})
			}
		}
		if len(nodes) == 0 {
			return // not a usable map
		}
		slices.SortFunc(nodes, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
		m = append(m, newShardNodes(nodes))
	}
	if len(m) > 0 {
		c.shards.Store(&m)
	}
}
