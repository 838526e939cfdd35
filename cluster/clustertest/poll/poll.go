// Package poll waits in tests for a condition, with a deadline, so that no test sleeps.
package poll

import (
	"testing"
	"time"
)

// every is the time between two checks.
const every = 5 * time.Millisecond

// Until calls ok until it returns true, and fails the test when that takes longer than within. what names the
// condition.
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
