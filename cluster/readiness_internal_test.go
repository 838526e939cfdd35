package cluster

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/config"
)

// TestReadyNeedsAllShards: a node that does not serve a shard that the layout gives it is not ready, and says
// which; it names some of many.
func TestReadyNeedsAllShards(t *testing.T) {
	cfg := config.Default()
	serving := newServing(func() {})
	var held []uint64
	n := newReadiness(cfg, 2, &shardLogs{}, serving, &disk{}, func() []uint64 { return held })
	n.ready.Store(true)
	serving.set(1, true)
	serving.set(3, true)
	for _, x := range []struct {
		held uint64
		want string
	}{
		{1, "shard 1 has no leader"}, // this comes after
		{5, "does not serve 3 of its 5 shards: 2 4 5"},
		{40, "38 of its 40 shards: 2 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 and 18 more"},
	} {
		held = nil
		for shard := range x.held {
			held = append(held, shard+1)
		}
		err := n.Ready()
		if image.KindOf(err) != image.KindNoQuorum || !strings.HasSuffix(err.Error(), x.want) ||
			image.HintOf(err) == "" {
			t.Errorf("of %d shards: %v, want %q", x.held, err, x.want)
		}
	}
}

// TestAwaitStart sends requests to a node that starts. A shard that it serves already, as the others know, is
// given uploads: these wait until it is ready, and what else comes is refused at once.
func TestAwaitStart(t *testing.T) { synctest.Test(t, awaitStart) }

func awaitStart(t *testing.T) {
	cfg := config.Default()
	cfg.Cluster.DataShards = 1
	serving := newServing(func() {})
	n := newReadiness(cfg, 1, &shardLogs{}, serving, nil, nil)
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
	leaderless := expectRefused("a.png", electionsAwaited*election+n.retry)
	if leaderless.Error() == starting.Error() {
		t.Errorf("a node that has become ready answers %v", leaderless)
	}
}
