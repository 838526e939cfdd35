// Package wait waits.
package wait

import (
	"context"
	"time"
)

// For waits for d, or until ctx ends, and tells whether it waited to the end.
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
