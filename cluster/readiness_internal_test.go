package cluster

import (
	"strings"
	"testing"
	"time"

	"imgcluster/config"
)

// TestAwaitStart sends requests to a node that starts. A shard that it serves already, as the others know, is
// given uploads: these wait until it is ready, and what else comes is refused at once.
func TestAwaitStart(t *testing.T) {
	cfg := config.Default()
	cfg.Cluster.DataShards = 1
	serving := newServing(func() {})
	n := newReadiness(cfg, 1, &replicated{}, serving, nil)
	const starts, leaderless = "is starting", "has no leader" // without a log there never is one
	await := func(name, want string) {
		t.Helper()
		if err := n.Await(t.Context(), "alice", name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want that it %s", name, err, want)
		}
	}
	await("a.png", starts)
	serving.set(2, true)
	await("", starts)
	time.AfterFunc(50*time.Millisecond, func() { n.ready.Store(true) })
	await("a.png", leaderless)
}
