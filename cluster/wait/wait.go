// Package wait waits: for a time that a context can cut short, and for goroutines; and reports whether a wait
// is over.
package wait

import (
	"context"
	"time"
)

// For waits for d or until ctx ends, and reports whether it waited for d.
func For(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Closed reports whether a channel on which nothing is sent is closed.
func Closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
