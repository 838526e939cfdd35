package api

import (
	"context"
	"time"

	"imgcluster/cluster/image"
)

// slots bounds what runs at once.
type slots struct {
	what    string // for the message
	setting string // likewise; empty when the bound is fixed
	taken   chan struct{}
}

func newSlots(n int, what, setting string) slots {
	return slots{what, setting, make(chan struct{}, n)}
}

// acquire waits up to limit for a slot, which release gives back.
func (s slots) acquire(ctx context.Context, limit time.Duration) error {
	select {
	case s.taken <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case s.taken <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
	}
	err := image.Errorf(image.KindOverload,
		"the node has %d %s under way, its limit%s", cap(s.taken), s.what, s.setting)
	return err.WithHint("send fewer at once").WithRetry(time.Second)
}

func (s slots) release() { <-s.taken }
