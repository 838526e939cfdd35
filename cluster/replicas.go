package cluster

import (
	"context"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/bootstrap"
	"imgcluster/cluster/catalog"
	"imgcluster/cluster/consensus"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
	"imgcluster/cluster/ingest"
	"imgcluster/cluster/membership"
	"imgcluster/cluster/peer"
	"imgcluster/cluster/repair"
	"imgcluster/cluster/wait"
)

// replicas runs this node's replicas of the shards. Every node has the cluster's membership, from the system
// shard. Each runs the replicas that the layouts assign to it; the leader of a shard changes the shard's Raft
// group, one replica at a time, until the group matches its layout.
type replicas struct {
	self          image.NodeID
	starter       *bootstrap.Starter
	log           *shardLogs
	view          *view
	groups        *groups
	serving       *serving
	peers         *peer.Set
	ingest        *ingest.Service
	repair        *repair.Service
	accounts      *accounts
	retry         time.Duration // until a shard is looked at again that has no leader yet
	leaderChanges *atomic.Int64 // counts changes of leaders
	fail          func(error)   // ends the node
	logger        *zap.Logger

	persisted uint64 // version of the membership saved in the data directory; used by reconcile only
}

// reconcileEvery is how often the replicas are compared with the membership, beside every change.
const reconcileEvery = time.Second

// start starts the replicas that this node ran before, those that it was admitted with, or, when it founds
// the cluster, those of the configuration.
func (r *replicas) start(ctx context.Context, c *consensus.Consensus) error {
	stored, err := c.Stored()
	if err != nil {
		return err
	}
	if len(stored) == 0 && !r.view.admitted {
		m, err := r.starter.Readmit(ctx)
		if err != nil {
			return err
		}
		r.view.admit(m)
	}
	if len(stored) == 0 || r.view.admitted {
		stored = map[uint64]catalog.Replica{}
		for shard, l := range r.view.membership().Shards {
			if replica, ok := l.Of(r.self); ok {
				stored[shard] = replica
			}
		}
	}
	failpoint.Here("member/before-first-replica")
	for _, shard := range slices.Sorted(maps.Keys(stored)) {
		if err := c.StartShard(r.view.spec(shard, stored[shard])); err != nil {
			return err
		}
	}
	return nil
}

// peersGrace is how long a node that starts waits to see all others, and again for them to serve their
// shards, so that its first decisions count them in.
const peersGrace = 2 * time.Second

// join introduces the node to the cluster and brings its replicas up to date.
func (r *replicas) join(ctx context.Context) error {
	if err := r.proposeJoin(ctx); err != nil {
		return err
	}
	r.await(ctx, func() bool { return len(r.peers.Up()) >= len(r.view.membership().Members) })
	err := r.catchUp(ctx)
	r.await(ctx, r.view.peersServe)
	return err
}

// proposeJoin proposes this node's Join to the system shard, and retries until a majority answers.
func (r *replicas) proposeJoin(ctx context.Context) error {
	j := r.starter.Introduce()
	for {
		result, err := r.log.Propose(ctx, systemShard, catalog.Command{Join: &j})
		if err == nil {
			if err = result.Err(); err != nil {
				return bootstrap.Refuse(image.HintOf(err), "%v", err)
			}
			r.view.update(result.Members) // from now on another incarnation than this node's is a later one
			return r.starter.Introduced()
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.logger.Warn("waiting for a majority of the nodes", zap.Error(err), zap.String("hint",
			"start the others, all with this version of imgcluster; they must reach each other's raft_port"))
		r.endIfSuperseded(ctx)
		if !wait.For(ctx, bootstrap.Retry) {
			return ctx.Err()
		}
	}
}

// await waits until ok, for peersGrace at most.
func (r *replicas) await(ctx context.Context, ok func() bool) {
	deadline := time.Now().Add(peersGrace)
	for !ok() && time.Now().Before(deadline) {
		if !wait.For(ctx, 20*time.Millisecond) {
			return
		}
	}
}

// catchUp brings this node's shards up to date. The system shard comes
// first: it says which other shards belong here now. Replicas that have moved away are dropped.
func (r *replicas) catchUp(ctx context.Context) error {
	c, asked := r.log.c.Load(), time.Now()
	for {
		if r.serve(ctx, c, systemShard); r.serving.has(systemShard) {
			if err := r.reconcileOwn(ctx); err != nil {
				return err
			}
			if !slices.ContainsFunc(c.Hosted(), func(shard uint64) bool {
				return !r.serving.has(shard) && r.view.awaited(shard)
			}) {
				return nil
			}
		}
		if time.Since(asked) > reconcileEvery {
			r.endIfSuperseded(ctx)
			asked = time.Now()
		}
		if !wait.For(ctx, r.retry) {
			return ctx.Err()
		}
	}
}

// reconcile keeps this node's replicas and the groups that it leads as the membership says.
func (r *replicas) reconcile(ctx context.Context) {
	system := system{r.log, r.view}
	groups := membership.New(membership.Options{
		Self:          r.self,
		Raft:          r.log.c.Load(),
		System:        system,
		Known:         r.view.membership,
		Up:            r.peers.Up,
		Serves:        r.view.servedBy,
		Unused:        system.unused,
		LeaderChanges: r.leaderChanges.Load,
		Logger:        r.logger,
	})
	ticker := time.NewTicker(reconcileEvery)
	defer ticker.Stop()
	for {
		r.endIfSuperseded(ctx)
		if err := r.reconcileOwn(ctx); err != nil {
			r.fail(err)
			return
		}
		r.persistMembers()
		groups.Reconcile(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-r.view.changed:
		}
	}
}

func (r *replicas) persistMembers() {
	m := r.view.membership()
	if m.Version == 0 || m.Version == r.persisted {
		return
	}
	if err := r.starter.Persist(m); err != nil {
		r.logger.Warn("members not persisted in the data directory", zap.Error(err))
		return
	}
	r.persisted = m.Version
}

// endIfSuperseded ends the node where its peers say that it was removed, or that another data directory has
// taken its place.
func (r *replicas) endIfSuperseded(ctx context.Context) {
	if err := r.starter.Superseded(ctx, r.log.Leader(systemShard) != 0); err != nil {
		r.fail(err)
	}
}

// reconcileOwn starts and stops replicas of this node, which has joined. The error ends the node: it is not
// the one that the cluster knows, so the layouts are not its own, and it leaves what it has as it is.
func (r *replicas) reconcileOwn(ctx context.Context) error {
	c, m := r.log.c.Load(), r.view.membership()
	if err := r.starter.Registered(m); err != nil {
		return err
	}
	for _, shard := range slices.Sorted(maps.Keys(m.Shards)) {
		want, ok := m.Shards[shard].Of(r.self)
		have, runs := c.Replica(shard)
		var err error
		if runs && (!ok || want.Number > have.Number) {
			err = r.dropLeft(ctx, c, shard, m.Shards[shard])
			if _, runs = c.Replica(shard); err == nil && runs {
				continue // its group needs it still
			}
		}
		if err == nil && ok && !runs {
			failpoint.Here("member/before-start-shard")
			err = c.StartShard(r.view.spec(shard, want))
			failpoint.Here("member/shard-started")
			r.logger.Info("shard started on this node", zap.Uint64("shard", shard), zap.Error(err))
		}
		if err != nil {
			r.logger.Warn("shard neither started nor stopped", zap.Uint64("shard", shard), zap.Error(err))
			continue
		}
		if ok {
			r.serve(ctx, c, shard)
		}
	}
	return nil
}

// dropLeft gives up this node's replica of a shard once the shard's group says that it is not in it any more.
func (r *replicas) dropLeft(
	ctx context.Context, c *consensus.Consensus, shard uint64, l *catalog.Layout,
) error {
	have, _ := c.Replica(shard)
	left, err := r.groups.left(ctx, shard, l, have)
	switch {
	case err != nil:
		return err
	case !left:
		r.logger.Debug("replica kept: it is in its group", zap.Uint64("shard", shard))
		return nil
	}
	return r.drop(ctx, c, shard)
}

// drop gives up this node's replica of a shard.
func (r *replicas) drop(ctx context.Context, c *consensus.Consensus, shard uint64) error {
	r.serving.set(shard, false)
	r.ingest.Forget(shard)
	failpoint.Here("member/before-drop-shard")
	err := c.DropShard(ctx, shard)
	failpoint.Here("member/shard-dropped")
	return err
}

// restart tells a shard that this node does not keep copies that an earlier process of it reported: they may
// be lost, with its disk, and their uploads are over here.
func (r *replicas) restart(ctx context.Context, shard uint64) error {
	_, err := r.log.Do(ctx, shard, catalog.Command{Restart: &catalog.Restart{Node: r.self}})
	return err
}

// serve serves a shard once this node has its newest state.
func (r *replicas) serve(ctx context.Context, c *consensus.Consensus, shard uint64) {
	if r.serving.has(shard) || !c.CaughtUp(ctx, shard) {
		return
	}
	if shard == systemShard {
		r.view.reload()
		r.accounts.reload()
	} else if err := r.restart(ctx, shard); err != nil {
		r.logger.Warn("shard not served yet", zap.Uint64("shard", shard), zap.Error(err))
		return
	}
	r.serving.set(shard, true)
	r.repair.Kick()
}
