package consensus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4"

	"imgcluster/cluster/wait"
)

// compactTimeout bounds Compact's work on one shard's log.
const compactTimeout = 30 * time.Second

// Compact has this node's disk forget what commands have replaced or deleted up to now: the values in the
// catalog, and the commands in the Raft logs of the shards that run here. A shard's log is cut at a snapshot,
// of which there can be only one at an index: nudge proposes something to a shard where nothing has happened
// since the last one. What stays until it is overwritten is in the storage that the databases and the file
// system have freed.
func (c *Consensus) Compact(ctx context.Context, nudge func(ctx context.Context, shard uint64) error) error {
	leave, err := c.calls.enter()
	if err != nil {
		return err
	}
	defer leave()
	for _, shard := range c.Hosted() {
		if err := c.compactLog(ctx, shard, nudge); err != nil {
			return fmt.Errorf("compact the log of shard %d: %w", shard, err)
		}
	}
	leaveDB, err := c.db.readers.enter()
	if err != nil {
		return err
	}
	defer leaveDB()
	return c.db.pebble.Compact(ctx, []byte{0}, bytes.Repeat([]byte{0xff}, 9), false)
}

func (c *Consensus) compactLog(
	ctx context.Context, shard uint64, nudge func(ctx context.Context, shard uint64) error,
) error {
	ctx, cancel := context.WithTimeout(ctx, compactTimeout)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	for {
		index, err := c.host.SyncRequestSnapshot(ctx, shard,
			dragonboat.SnapshotOption{OverrideCompactionOverhead: true})
		switch {
		case err == nil:
			return c.compactions.wait(ctx, shard, index)
		case !errors.Is(err, dragonboat.ErrRejected) && !errors.Is(err, dragonboat.ErrSystemBusy):
			return err
		}
		if err := nudge(ctx, shard); err != nil {
			return err
		}
		if !wait.For(ctx, c.opts.pause()) {
			return context.Cause(ctx)
		}
	}
}

// compactions are those of the Raft logs. It is safe for concurrent use.
type compactions struct {
	mu   sync.Mutex
	last map[uint64]compaction // by shard
}

// compaction is one up to and with an entry's index.
type compaction struct {
	index uint64
	done  <-chan struct{}
}

func (c *compactions) begun(shard, index uint64, done <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil {
		c.last = map[uint64]compaction{}
	}
	c.last[shard] = compaction{index, done}
}

// wait waits until a shard's log is compacted up to and with an entry.
func (c *compactions) wait(ctx context.Context, shard, index uint64) error {
	for {
		c.mu.Lock()
		last := c.last[shard]
		c.mu.Unlock()
		if last.done != nil && last.index >= index {
			select {
			case <-last.done:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if !wait.For(ctx, 10*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
}
