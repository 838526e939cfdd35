package api

import (
	"context"
	"time"

	"imgcluster/cluster/image"
)

// places bounds what goes on at once.
type places struct {
	what, setting string // for the message; without a setting the bound is fixed
	taken         chan struct{}
}

func newPlaces(n int, what, setting string) places {
	return places{what, setting, make(chan struct{}, n)}
}

// take waits for a place for so long; give it back.
func (p places) take(ctx context.Context, limit time.Duration) error {
	select {
	case p.taken <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case p.taken <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
	}
	err := image.Errorf(image.KindOverload, "the node has %d %s under way, its limit%s", cap(p.taken), p.what, p.setting)
	return err.WithHint("send fewer at once").WithRetry(time.Second)
}

func (p places) give() { <-p.taken }
