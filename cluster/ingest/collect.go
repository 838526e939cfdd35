package ingest

import (
	"context"
	"errors"
	"sync/atomic"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
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
				select {
				case c.leftover <- struct{}{}:
				default: // a sweep has been requested already
				}
			}
		}
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

// clean deletes the files of an upload for which there is no use now. It reports whether it has left any that
// may still turn out to be useless: while the log waits for this node's copy, it may be any of them.
func (c *collector) clean(key pendingKey) (left bool) {
	var state *catalog.Upload // before the files are judged
	err := c.Log.View(key.shard, func(r catalog.Reader) (err error) {
		state, err = catalog.GetUpload(r, key.id)
		return err
	})
	var files []image.FileID
	if err == nil {
		files, err = c.Store.Of(key.shard, key.id)
	}
	for _, f := range files {
		wanted, wantErr := c.Wanted(f)
		if err = errors.Join(err, wantErr); wantErr == nil && !wanted {
			c.discard(f)
		}
		left = left || wanted
	}
	if err != nil {
		c.Logger.Warn("files of an upload not deleted; the sweep will try again",
			zap.Stringer("upload", key.id), zap.Error(err))
	}
	switch {
	case state != nil && state.State == catalog.Pending:
		return true // there may be more when it ends
	case err != nil:
		return false
	}
	return left && (state == nil || state.State == catalog.Failed) // it is sent again
}
