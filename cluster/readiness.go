package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wait"
	"imgcluster/config"
)

// readiness knows whether this node can serve images. It is safe for concurrent use.
type readiness struct {
	self     image.NodeID
	shards   shardIDs
	log      *shardLogs
	serving  *serving
	disk     *disk
	held     func() []uint64 // the shards that the layout gives this node
	election time.Duration   // the least that an election takes
	retry    time.Duration   // until a leader is looked for again

	ready        atomic.Bool
	failed       atomic.Bool // the node is about to end
	shuttingDown atomic.Bool // running requests finish, new uploads are refused
}

func newReadiness(
	cfg *config.Config, self image.NodeID, log *shardLogs, s *serving, d *disk, held func() []uint64,
) *readiness {
	return &readiness{
		self:     self,
		shards:   dataShards(cfg.Cluster.DataShards),
		log:      log,
		serving:  s,
		disk:     d,
		held:     held,
		election: time.Duration(cfg.Raft.ElectionRTT) * cfg.Raft.RTT,
		retry:    cfg.Raft.RTT / 2,
	}
}

// Ready implements api.Node.
func (r *readiness) Ready() error {
	if r.shuttingDown.Load() || r.failed.Load() {
		return image.Errorf(image.KindNoQuorum, "node %d is stopping", r.self).WithHint("ask another node")
	}
	if err := r.started(); err != nil {
		return err
	}
	if err := r.disk.degraded(); err != nil {
		return err
	}
	if err := r.complete(); err != nil {
		return err
	}
	return r.led(r.serving.withSystem())
}

// started returns an error until this node has joined the cluster and caught up.
func (r *readiness) started() error {
	if !r.ready.Load() {
		return image.Errorf(image.KindNoQuorum, "node %d is starting and has not reached a majority of the nodes",
			r.self).
			WithHint("start the other nodes, or wait a moment").WithRetry(time.Second)
	}
	return nil
}

// namedMax bounds how many shards an answer names.
const namedMax = 20

// complete returns an error while this node does not serve all shards that the layout gives it.
func (r *readiness) complete() error {
	held := r.held()
	missing := slices.DeleteFunc(slices.Clone(held), r.serving.has)
	if len(missing) == 0 {
		return nil
	}
	n, more := len(missing), ""
	if n > namedMax {
		missing, more = missing[:namedMax], fmt.Sprintf(" and %d more", n-namedMax)
	}
	return image.Errorf(image.KindNoQuorum, "node %d does not serve %d of its %d shards: %s%s", r.self,
		n, len(held), strings.Trim(fmt.Sprint(missing), "[]"), more).
		WithHint("wait until it has caught up; if that does not end, start the nodes that are down").
		WithRetry(time.Second)
}

func (r *readiness) led(shards []uint64) error {
	for _, shard := range shards {
		if r.log.Leader(shard) == 0 {
			return image.Errorf(image.KindNoQuorum, "shard %d has no leader", shard).
				WithHint("wait for the election; if it does not end, start more nodes").WithRetry(time.Second)
		}
	}
	return nil
}

// electionsAwaited is how long a request waits for a leader, in shortest possible elections.
const electionsAwaited = 3

// Await implements api.Node.
func (r *readiness) Await(ctx context.Context, user, name string) error {
	shards := r.serving.withSystem()
	if name != "" {
		shard := r.shards.of(user, name)
		shards = []uint64{systemShard, shard}
		if r.ready.Load() && !r.serving.has(shard) {
			return image.Errorf(image.KindNoQuorum, "no node that holds shard %d answers", shard).
				WithHint("start the nodes that are down").WithRetry(time.Second)
		}
	}
	limit := time.Now().Add(electionsAwaited * r.election)
	for {
		err := r.started()
		if err == nil {
			err = r.led(shards)
		} else if name == "" || !r.serving.has(shards[1]) {
			return err
		} // else it serves the shard, and peers give it uploads: it is about to be ready
		if err == nil || time.Now().After(limit) || !wait.For(ctx, r.retry) {
			return err
		}
	}
}
