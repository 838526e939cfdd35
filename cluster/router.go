package cluster

import (
	"slices"
	"sync/atomic"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/peer"
)

// router finds the nodes that serve a shard. It is safe for concurrent use.
type router struct {
	self      image.NodeID
	shards    shardIDs
	readiness *readiness
	view      *view
	serving   *serving
	peers     *peer.Set

	turn atomic.Uint32 // of holder
}

// Route implements api.Node.
func (r *router) Route(user, name string) (holder image.NodeID, here bool) {
	shard := r.shards.of(user, name)
	if !r.readiness.ready.Load() || r.serving.has(shard) {
		return 0, true
	}
	return r.holder(shard), false
}

// holder returns a peer that serves a shard, another one from time to time; 0 when there is none.
func (r *router) holder(shard uint64) image.NodeID {
	up := r.peers.Up()
	holders := slices.DeleteFunc(r.view.nodesOf(shard),
		func(id image.NodeID) bool { return !slices.Contains(up, id) || !r.view.servedBy(id, shard) })
	if len(holders) == 0 {
		return 0
	}
	return holders[int(r.turn.Add(1))%len(holders)]
}

// locate gives every data shard to a node that serves it, this one where it does.
func (r *router) locate() (map[image.NodeID][]uint64, error) {
	where := map[image.NodeID][]uint64{}
	for _, shard := range r.shards {
		node := r.self
		if !r.serving.has(shard) {
			node = r.holder(shard)
		}
		if node == 0 {
			return nil, image.Errorf(image.KindNoQuorum, "no node that holds shard %d answers", shard).
				WithHint("start the nodes that are down").WithRetry(time.Second)
		}
		where[node] = append(where[node], shard)
	}
	return where, nil
}
