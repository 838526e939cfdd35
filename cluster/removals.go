package cluster

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// removals does what is left of users' removals: the leader of a data shard deletes the user's images there,
// in steps, and each node has its disk forget old values. All of it is in the log, so that another node goes
// on where one ended.
type removals struct {
	self    image.NodeID
	log     *shardLogs
	view    *view
	serving *serving
	logger  *zap.Logger
	changed chan struct{} // capacity 1
}

// removalsEvery is the pause between two looks when nothing is said to have changed, also after a failure.
const removalsEvery = 5 * time.Second

func newRemovals(self image.NodeID, log *shardLogs, v *view, s *serving, logger *zap.Logger) *removals {
	return &removals{
		self: self, log: log, view: v, serving: s, logger: logger, changed: make(chan struct{}, 1),
	}
}

// kick makes run look at once. It does not block.
func (r *removals) kick() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// run works until ctx is done.
func (r *removals) run(ctx context.Context) {
	every := time.NewTicker(removalsEvery)
	defer every.Stop()
	for {
		if err := r.step(ctx); err != nil && ctx.Err() == nil {
			r.logger.Warn("removal of a user is not complete", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		case <-r.changed:
		}
	}
}

// step does this node's part of what is left.
func (r *removals) step(ctx context.Context) error {
	var all []*catalog.Removal
	err := r.log.View(systemShard, func(reader catalog.Reader) (err error) {
		all, err = catalog.Removals(reader)
		return err
	})
	if err != nil || len(all) == 0 {
		return err
	}
	// A data shard executes removals in the order of their numbers.
	if i := slices.IndexFunc(all, func(x *catalog.Removal) bool { return len(x.Shards) > 0 }); i >= 0 {
		if err := r.purge(ctx, all[i]); err != nil {
			return err
		}
	}
	if err := r.compact(ctx, all); err != nil {
		return err
	}
	return r.forgetNodes(ctx, all)
}

// purge deletes the images of a removal in the shards that this node leads.
func (r *removals) purge(ctx context.Context, x *catalog.Removal) error {
	for _, shard := range x.Shards {
		if r.log.Leader(shard) != r.self || !r.serving.has(shard) {
			continue
		}
		images, more := 0, true
		for more {
			result, err := r.log.Do(ctx, shard, catalog.Command{Purge: &catalog.Purge{
				Removal: x.Number, User: x.User,
			}})
			if err != nil {
				return err
			}
			images, more = images+result.Purged.Images, result.Purged.More
		}
		if err := r.removed(ctx, catalog.Removed{Removal: x.Number, Shard: shard}); err != nil {
			return err
		}
		r.logger.Info("images of a removed user deleted", zap.String("user", x.User), zap.Uint64("shard", shard),
			zap.Int("images", images))
	}
	return nil
}

func (r *removals) removed(ctx context.Context, c catalog.Removed) error {
	_, err := r.log.Do(ctx, systemShard, catalog.Command{Removed: &c})
	return err
}

// compact has this node's disk forget old values, for all removals of which no image is left.
func (r *removals) compact(ctx context.Context, all []*catalog.Removal) error {
	var mine []*catalog.Removal
	for _, x := range all {
		if len(x.Shards) == 0 && slices.Contains(x.Nodes, r.self) {
			mine = append(mine, x)
		}
	}
	if len(mine) == 0 {
		return nil
	}
	c, err := r.log.started()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := c.Compact(ctx, r.nudge); err != nil {
		return err
	}
	for _, x := range mine {
		if err := r.removed(ctx, catalog.Removed{Removal: x.Number, Node: r.self}); err != nil {
			return err
		}
		r.logger.Info("old values of a removed user dropped from this node's databases",
			zap.String("user", x.User), zap.Duration("took", time.Since(began).Round(time.Millisecond)))
	}
	return nil
}

// nudge proposes a command to a shard that changes nothing.
func (r *removals) nudge(ctx context.Context, shard uint64) error {
	c := catalog.Command{Purge: &catalog.Purge{User: "nobody"}} // removals have numbers from 1
	if shard == systemShard {
		c = catalog.Command{Removed: &catalog.Removed{}}
	}
	_, err := r.log.Propose(ctx, shard, c)
	return err
}

// forgetNodes ends the waiting for nodes that are no members any more, on the leader of the system shard.
func (r *removals) forgetNodes(ctx context.Context, all []*catalog.Removal) error {
	if r.log.Leader(systemShard) != r.self {
		return nil
	}
	m := r.view.membership()
	for _, x := range all {
		for _, id := range x.Nodes {
			if m.Member(id) != nil {
				continue
			}
			if err := r.removed(ctx, catalog.Removed{Removal: x.Number, Node: id}); err != nil {
				return err
			}
		}
	}
	return nil
}
