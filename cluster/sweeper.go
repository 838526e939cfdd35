package cluster

import (
	"context"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/store"
)

// references counts what needs the files of this node: records, pending uploads and running repairs. It is
// safe for concurrent use.
type references struct {
	self       image.NodeID
	log        *shardLogs
	serving    *serving
	membership func() *catalog.Membership
	pins       pins
}

// count counts the uses of a file of this node: shards that name it, and a repair under way.
func (u *references) count(id image.ID, epoch uint32) (count int, err error) {
	count = u.pins.count(id, epoch)
	for _, shard := range u.serving.data() {
		err := u.log.View(shard, func(r catalog.Reader) error {
			keep, err := catalog.Wants(r, u.self, id, epoch)
			if keep {
				count++
			}
			return err
		})
		if err != nil {
			return count, err
		}
	}
	return count, nil
}

// any reports whether there is a use for a file of this node. The file was there before the call, so
// its assignment is in this node's state of the shard, once that is the newest.
func (u *references) any(id image.ID, epoch uint32) (bool, error) {
	for shard, l := range u.membership().Shards {
		if _, ok := l.Of(u.self); ok && !u.serving.has(shard) {
			return true, image.Errorf(image.KindNoQuorum, "shard %d is not up to date on this node", shard)
		}
	}
	count, err := u.count(id, epoch)
	return count > 0 || err != nil, err
}

// sweeper deletes files of this node that no record names.
type sweeper struct {
	references *references
	store      *store.Store
	every      time.Duration
	leftover   <-chan struct{} // some are known to be left
	logger     *zap.Logger
}

// sweepRetry is the pause after a sweep that failed, as one does while a shard is not up to date here.
const sweepRetry = 10 * time.Second

// run sweeps at once, at every interval, and when some files are known to be left, until ctx is done.
func (s *sweeper) run(ctx context.Context) {
	for {
		began, pause := time.Now(), s.every
		removed, bytes, err := s.store.Sweep(s.references.any)
		if err != nil {
			pause = min(pause, sweepRetry)
			s.logger.Warn("sweep", zap.Error(err), zap.Duration("again_in", pause))
		} else if removed > 0 {
			s.logger.Info("swept files without a record", zap.Int("files", removed), zap.Int64("bytes", bytes),
				zap.Duration("in", time.Since(began)))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		case <-s.leftover:
		}
	}
}
