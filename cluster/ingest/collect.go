package ingest

import (
	"context"
	"sync/atomic"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
)

// removalsMax bounds the queue of files to delete; what does not fit is left to the sweep.
const removalsMax = 1024

// collector deletes the files of replaced and deleted records, one at a time.
type collector struct {
	*Options
	queue    chan image.Record
	overflow atomic.Bool   // a file did not fit in queue
	leftover chan struct{} // capacity 1; see Service.Leftover
}

func newCollector(o *Options) *collector {
	return &collector{
		Options:  o,
		queue:    make(chan image.Record, removalsMax),
		leftover: make(chan struct{}, 1),
	}
}

// remove has this node's files of a record deleted. It does not block.
func (c *collector) remove(rec image.Record) {
	select {
	case c.queue <- rec:
	default:
		c.overflow.Store(true)
	}
}

func (c *collector) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case rec := <-c.queue:
			for _, copied := range rec.Copies {
				if copied.Node == c.Node {
					c.discard(rec.ID, copied.Epoch)
				}
			}
			if len(c.queue) == 0 && c.overflow.Swap(false) {
				select {
				case c.leftover <- struct{}{}:
				default: // a sweep has been requested already
				}
			}
		}
	}
}

// discard deletes the file of one copy now.
func (c *collector) discard(id image.ID, epoch uint32) {
	failpoint.Here("upload/before-discard")
	if err := c.Store.Remove(id, epoch); err != nil {
		c.Logger.Warn("copy not deleted; the sweep will try again", zap.Stringer("image", id), zap.Error(err))
	}
	failpoint.Here("upload/discarded")
}

// lostSlot returns the file of the slot that a node has in before and no longer in after, as a record for
// remove; nil when it has lost none.
func lostSlot(node image.NodeID, before, after *catalog.Upload) *image.Record {
	had, has := before.Slot(node), after.Slot(node)
	if had == nil || has != nil && has.Epoch == had.Epoch {
		return nil
	}
	return &image.Record{ID: before.ID, Copies: []image.Copy{{Node: node, Epoch: had.Epoch}}}
}
