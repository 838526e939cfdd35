package cluster

import (
	"context"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/image"
	"imgcluster/cluster/store"
)

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
		removed, bytes, err := s.sweep()
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

// sweep looks up the files that it does not know to be of a record. Those that it believes to know by mistake
// are left to the next sweep.
func (s *sweeper) sweep() (removed int, bytes int64, err error) {
	known, err := s.references.known()
	if err != nil {
		return 0, 0, err
	}
	return s.store.Sweep(func(f image.FileID) (bool, error) {
		if known.has(f) {
			return true, nil
		}
		return s.references.wanted(f)
	})
}
