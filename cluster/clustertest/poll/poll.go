// Package poll is how tests wait: for what holds, never for a time.
package poll

import (
	"testing"
	"time"
)

// every is the time between two looks.
const every = 5 * time.Millisecond

// Until looks until ok holds, and fails the test when that takes longer than within.
func Until(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	end := time.After(within)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%s: not within %v", what, within)
		}
	}
}
