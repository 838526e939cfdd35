package ingest

import (
	"context"
	"sync/atomic"

	"go.uber.org/zap"

	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
)

// removalsMax bounds the queue of removals; what does not fit is left to the sweep.
const removalsMax = 1024

// collector deletes files that are no longer needed, one at a time.
type collector struct {
	*Options
	queue    chan func()
	overflow atomic.Bool   // a removal did not fit in queue
	leftover chan struct{} // capacity 1; see Service.Leftover
}

func newCollector(o *Options) *collector {
	return &collector{
		Options:  o,
		queue:    make(chan func(), removalsMax),
		leftover: make(chan struct{}, 1),
	}
}

// later queues a removal, and reports whether there was a place for it. It does not block.
func (c *collector) later(removal func()) bool {
	select {
	case c.queue <- removal:
		return true
	default:
		c.overflow.Store(true)
		return false
	}
}

// remove has this node's file of a record deleted. It does not block.
func (c *collector) remove(rec *image.Record) {
	for _, copied := range rec.Copies {
		if copied.Node == c.Node {
			c.later(func() { c.discard(rec.File(copied)) })
		}
	}
}

func (c *collector) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case removal := <-c.queue:
			removal()
			if len(c.queue) == 0 && c.overflow.Swap(false) {
				c.leave()
			}
		}
	}
}

// leave has files left to the sweep.
func (c *collector) leave() {
	select {
	case c.leftover <- struct{}{}:
	default: // a sweep has been requested already
	}
}

// discard deletes a file now.
func (c *collector) discard(f image.FileID) {
	failpoint.Here("upload/before-discard")
	if err := c.Store.Remove(f); err != nil {
		c.Logger.Warn("copy not deleted; the sweep will try again", zap.Stringer("file", f), zap.Error(err))
	}
	failpoint.Here("upload/discarded")
}
