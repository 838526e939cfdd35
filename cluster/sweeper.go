package cluster

import (
	"context"
	"slices"
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
	restored   time.Time      // store.Identity.RestoredAt
	spared     []image.FileID // that were in use during the last sweep, and have not been looked at since
}

// sweepRetry is the pause after a sweep that failed, as one does while a shard is not up to date here, and
// before a look at the files that were in use during one.
const sweepRetry = 10 * time.Second

// restoredKeep is how long files without a record are kept that were there when this node, or its cluster,
// was restored from a backup: with another backup they may have one again.
const restoredKeep = 7 * 24 * time.Hour

// kept reports whether a file is one of those.
func (s *sweeper) kept(f image.FileID) bool {
	if s.restored.IsZero() || time.Since(s.restored) >= restoredKeep {
		return false
	}
	made, known := f.Image.Made()
	return !known || made.Before(s.restored)
}

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
		if !s.wait(ctx, pause) {
			return
		}
	}
}

// wait waits until the next sweep is due, and looks meanwhile at the files that the last one has spared. It
// returns false when ctx is done.
func (s *sweeper) wait(ctx context.Context, pause time.Duration) bool {
	due := time.After(pause)
	for {
		var look <-chan time.Time
		if len(s.spared) > 0 {
			look = time.After(sweepRetry)
		}
		select {
		case <-ctx.Done():
			return false
		case <-due:
			return true
		case <-s.leftover:
			return true
		case <-look:
			s.spared = slices.DeleteFunc(s.spared, s.settled)
		}
	}
}

// settled deletes a file that was spared, if there is no use for it any more. It returns false while that is
// not known.
func (s *sweeper) settled(f image.FileID) bool {
	if s.references.inUse(f) {
		return false
	}
	if s.kept(f) {
		return true
	}
	keep, err := s.references.wanted(f)
	if err == nil && !keep {
		err = s.store.Remove(f)
	}
	if err != nil {
		s.logger.Warn("sweep", zap.Stringer("file", f), zap.Error(err), zap.Duration("again_in", sweepRetry))
	}
	return err == nil
}

// sweep looks up the files that it does not know to be of a record. Those that it believes to know by mistake
// are left to the next sweep.
func (s *sweeper) sweep() (removed int, bytes int64, err error) {
	known, err := s.references.known()
	if err != nil {
		return 0, 0, err
	}
	s.spared = nil
	return s.store.Sweep(func(f image.FileID) (bool, error) {
		if known.has(f) {
			return true, nil
		}
		if s.references.inUse(f) {
			s.spared = append(s.spared, f)
			return true, nil
		}
		if s.kept(f) {
			return true, nil
		}
		return s.references.wanted(f)
	})
}
