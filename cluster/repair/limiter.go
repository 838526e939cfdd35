package repair

import (
	"context"
	"sync"
	"time"

	"imgcluster/cluster/wait"
)

// limiter delays work so that it stays below rate on average.
type limiter struct {
	rate int64 // bytes a second
	mu   sync.Mutex
	next time.Time
}

// wait returns when n more bytes may be read or fetched, or when ctx ends.
func (l *limiter) wait(ctx context.Context, n int64) {
	l.mu.Lock()
	now := time.Now()
	if l.next.Before(now) {
		l.next = now
	}
	until := l.next
	l.next = l.next.Add(time.Duration(float64(n) / float64(l.rate) * float64(time.Second)))
	l.mu.Unlock()
	wait.For(ctx, until.Sub(now))
}
