package cluster

import (
	"testing"
	"testing/synctest"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/config"
)

// TestAwaitStart sends requests to a node that starts. A shard that it serves already, as the others know, is
// given uploads: these wait until it is ready, and what else comes is refused at once.
func TestAwaitStart(t *testing.T) { synctest.Test(t, awaitStart) }

func awaitStart(t *testing.T) {
	cfg := config.Default()
	cfg.Cluster.DataShards = 1
	serving := newServing(func() {})
	n := newReadiness(cfg, 1, &shardLogs{}, serving, nil)
	expectRefused := func(name string, after time.Duration) error {
		t.Helper()
		began := time.Now()
		err := n.Await(t.Context(), "alice", name)
		if took := time.Since(began); image.KindOf(err) != image.KindNoQuorum || took != after {
			t.Fatalf("%q: %v after %v, want no quorum after %v", name, err, took, after)
		}
		return err
	}
	starting := expectRefused("a.png", 0)
	serving.set(2, true)
	expectRefused("", 0)
	time.AfterFunc(cfg.Raft.RTT/2, func() { n.ready.Store(true) })
	election := time.Duration(cfg.Raft.ElectionRTT) * cfg.Raft.RTT
	leaderless := expectRefused("a.png", electionsAwaited*election+cfg.Raft.RTT)
	if leaderless.Error() == starting.Error() {
		t.Errorf("a node that has become ready answers %v", leaderless)
	}
}
