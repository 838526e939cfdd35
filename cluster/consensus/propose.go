package consensus

import (
	"context"
	"errors"
	"time"

	"github.com/lni/dragonboat/v4"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wait"
)

// Propose puts cmd into the shard's log through whichever node leads it, and returns what Apply
// answered on this node. It tries again when an attempt had no answer, which may have been
// committed nevertheless: applying cmd twice must be the same as once. cmd must not change until it
// returns, nor after.
//
// Errors: KindNoQuorum when no majority answered within ProposalTimeout or ctx (the command may
// still be applied later), KindTooLarge beyond CommandBytesMax, KindInternal when Apply panicked.
// When ctx is cancelled the error is context.Canceled.
func (c *Consensus) Propose(ctx context.Context, shard uint64, cmd []byte) (result []byte, err error) {
	if n := len(cmd); n > CommandBytesMax {
		return nil, image.Errorf(image.KindTooLarge,
			"a command of %d bytes is larger than %d", n, CommandBytesMax).
			WithHint("use shorter names")
	}
	c.counters.proposals.Add(1)
	var value uint64
	err = c.retry(ctx, shard, func(ctx context.Context) error {
		r, err := c.host.SyncPropose(ctx, c.host.GetNoOPSession(shard), cmd)
		result, value = r.Data, r.Value
		return err
	})
	if err == nil && value == resultPanicked {
		err = image.Errorf(image.KindInternal, "shard %d could not execute the command", shard).
			WithHint("see the node's log for \"apply panicked\"")
	}
	if err != nil {
		return nil, err
	}
	return result, nil
}

// Read calls fn once with a state of the shard that has everything that was committed before the
// call, on any node. fn's error is returned as it is; the others are those of Propose.
func (c *Consensus) Read(ctx context.Context, shard uint64, fn func(catalog.Reader) error) error {
	c.counters.reads.Add(1)
	var failed error
	err := c.retry(ctx, shard, func(ctx context.Context) error {
		result, err := c.host.SyncRead(ctx, shard, fn)
		failed, _ = result.(error)
		return err
	})
	if err != nil {
		return err
	}
	return failed
}

// View calls fn with this node's state of the shard, which is consistent but may be behind. It asks
// no other node and works without a leader.
func (c *Consensus) View(shard uint64, fn func(catalog.Reader) error) error {
	if c.shard(shard) == nil {
		return errShard(shard)
	}
	failed, err := c.db.view(shard, fn)
	if err != nil {
		return err
	}
	return failed
}

// retry calls attempt until it is done, fails for good, or time is up. An attempt is short, since
// one that went to a dead leader hangs for its whole time.
func (c *Consensus) retry(parent context.Context, shard uint64, attempt func(context.Context) error) error {
	if c.shard(shard) == nil {
		return errShard(shard)
	}
	leave, err := c.calls.enter()
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(parent, c.opts.ProposalTimeout)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	for ctx.Err() == nil {
		one, cancelOne := context.WithTimeout(ctx, c.opts.ProposalAttempt)
		err = attempt(one)
		cancelOne()
		if err == nil {
			return nil
		}
		if !retryable(err) {
			return c.finalError(err, shard)
		}
		c.counters.retries.Add(1)
		wait.For(ctx, c.opts.pause())
	}
	return c.giveUp(parent, shard, err)
}

// giveUp returns the error of a call that ran out of time, whose last attempt failed with last.
func (c *Consensus) giveUp(parent context.Context, shard uint64, last error) error {
	switch {
	case c.ctx.Err() != nil:
		return errStopping()
	case errors.Is(parent.Err(), context.Canceled):
		return context.Cause(parent)
	}
	c.counters.noQuorum.Add(1)
	election := time.Duration(c.opts.ElectionRTT) * c.opts.RTT
	err := image.Errorf(image.KindNoQuorum, "no majority of shard %d answered: %s", shard, reason(last)).
		WithHint("most of the shard's nodes must be up and reach each other: see imgcluster status").
		WithRetry(2 * election)
	err.Err = last
	return err
}

// reason returns why the last attempt of a call that ran out of time failed, in words of this program.
func reason(last error) string {
	switch {
	case errors.Is(last, dragonboat.ErrShardNotReady), errors.Is(last, dragonboat.ErrShardNotInitialized):
		return "it has no leader"
	case errors.Is(last, dragonboat.ErrSystemBusy):
		return "its queue is full"
	case errors.Is(last, dragonboat.ErrAborted):
		return "it is changing"
	}
	return "timed out"
}

// retryable reports whether an attempt that failed with err is worth another one.
func retryable(err error) bool {
	for _, e := range []error{
		dragonboat.ErrTimeout,             // no answer: may have been committed
		dragonboat.ErrShardNotReady,       // no leader, or one that is handing over: dropped
		dragonboat.ErrShardNotInitialized, // still opening
		dragonboat.ErrSystemBusy,          // a queue is full
		dragonboat.ErrAborted,             // cut by a snapshot or a change of members
		dragonboat.ErrCanceled,            // our context ended: giveUp returns why
		dragonboat.ErrTimeoutTooSmall,     // less than a tick was left
		dragonboat.ErrInvalidDeadline,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// finalError gives an error that no retry helps its kind.
func (c *Consensus) finalError(err error, shard uint64) error {
	var typed *image.Error
	switch {
	case errors.As(err, &typed):
		return err
	case c.ctx.Err() != nil, errors.Is(err, dragonboat.ErrClosed):
		return errStopping()
	case errors.Is(err, dragonboat.ErrShardNotFound), errors.Is(err, dragonboat.ErrShardClosed):
		return errShard(shard)
	case errors.Is(err, dragonboat.ErrPayloadTooBig):
		return image.Errorf(image.KindTooLarge,
			"shard %d does not take a command this large: %w", shard, err).
			WithHint("use shorter names")
	}
	return image.Errorf(image.KindInternal, "shard %d: %w", shard, err).WithHint("see the node's log")
}
