package cluster_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"imgcluster/cluster/bootstrap"
	"imgcluster/cluster/catalog"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/config"
)

// forge returns a Join that takes the place of a running node: all its fields are right, and its data
// directory is another one.
func forge(c *clustertest.Cluster, id image.NodeID) catalog.Join {
	j := c.Node(id).Introduction()
	j.Incarnation, j.Run, j.Starts, j.Replace = image.NewID().String(), image.NewID().String(), 1, true
	return j
}

// replicasOf returns what a node has on its disk, once that is a replica of each shard.
func replicasOf(t *testing.T, c *clustertest.Cluster, id image.NodeID) (all map[uint64]catalog.Replica) {
	t.Helper()
	clustertest.Poll(t, fmt.Sprintf("node %d to have all replicas", id), func() bool {
		var err error
		if all, err = c.Node(id).Replicas(); err != nil {
			t.Fatal(err)
		}
		return len(all) == c.Config.Cluster.DataShards+1
	})
	return all
}

// expectAlive expects that nodes have not ended, and that none of their replicas is another one.
func expectAlive(
	t *testing.T, c *clustertest.Cluster, before map[image.NodeID]map[uint64]catalog.Replica,
	ids ...image.NodeID,
) {
	t.Helper()
	for _, id := range ids {
		select {
		case err := <-c.Node(id).Failed():
			t.Errorf("node %d ended: %v", id, err)
		default:
		}
		if now := replicasOf(t, c, id); !maps.Equal(now, before[id]) {
			t.Errorf("node %d had %v and has %v", id, before[id], now)
		}
	}
}

// TestForgedJoins sends joins of two of three nodes, with everything right in them but the data directory,
// to a cluster that runs: first to the other nodes' door, then into the log. One node may be taken for
// lost; it stops and keeps what it has. No shard is lost, and it can come back.
func TestForgedJoins(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{})
	all := putImages(t, c, "kept", 6)
	before := map[image.NodeID]map[uint64]catalog.Replica{}
	for _, id := range c.IDs() {
		before[id] = replicasOf(t, c, id)
	}
	version := c.Node(1).Membership().Version

	t.Run("at the door", func(t *testing.T) {
		for _, id := range []image.NodeID{2, 3} { // a second process asks, while the first one runs
			for _, ask := range []bool{true, false} {
				r := bootstrap.JoinRequest{Join: forge(c, id), Ask: ask}
				expectJoin(t, c, r, image.KindNoQuorum, "serves")
			}
		}
		for name, change := range map[string]func(*bootstrap.JoinRequest){
			"long name":     func(r *bootstrap.JoinRequest) { r.Cluster = strings.Repeat("a", 60_000) },
			"no name":       func(r *bootstrap.JoinRequest) { r.Cluster = "" },
			"incarnation":   func(r *bootstrap.JoinRequest) { r.Incarnation = strings.Repeat("a", 60_000) },
			"other shards":  func(r *bootstrap.JoinRequest) { r.Shards = r.Shards[1:] },
			"other key":     func(r *bootstrap.JoinRequest) { r.KeyID, r.Keys = "0123", nil },
			"not replacing": func(r *bootstrap.JoinRequest) { r.Replace = false },
		} {
			t.Run(name, func(t *testing.T) {
				r := bootstrap.JoinRequest{Join: forge(c, 2)}
				change(&r)
				expectJoin(t, c, r, image.KindInvalid, "")
			})
		}
		if now := c.Node(1).Membership().Version; now != version {
			t.Errorf("the membership is version %d, was %d", now, version)
		}
		expectAlive(t, c, before, c.IDs()...)
	})

	t.Run("in the log", func(t *testing.T) {
		long := forge(c, 2)
		long.Cluster = strings.Repeat("a", 70_000)
		if err := c.Node(1).ProposeJoin(t.Context(), long); image.KindOf(err) != image.KindInvalid {
			t.Errorf("a name of 70,000 bytes: %v", err)
		}
		if err := c.Node(1).ProposeJoin(t.Context(), forge(c, 2)); err != nil {
			t.Fatal(err)
		}
		err := c.Node(1).ProposeJoin(t.Context(), forge(c, 3))
		if image.KindOf(err) != image.KindNoQuorum ||
			!strings.Contains(err.Error(), "node 2 is still being rebuilt") {
			t.Errorf("a second node: %v", err)
		}
		select {
		case err := <-c.Node(2).Failed():
			expectRefused(t, err, bootstrap.ErrOtherDirectory, "node 2")
		case <-time.After(clustertest.Deadline):
			t.Fatal("node 2 does not notice that another data directory has its place")
		}
		if r := c.Do(http.MethodGet, 2, "/readyz", nil, nil); r.Status != http.StatusServiceUnavailable {
			t.Errorf("/readyz of the node that ends: %d", r.Status)
		}
		expectAlive(t, c, before, c.IDs()...)
		c.Stop(2)
	})
	expectImages(t, c, all, 1, 3)
	all = append(all, putStored(t, c, 1, "after.png", clustertest.Image(600, 150_000)))

	expectRefused(t, c.TryStart(c.Config, 2), bootstrap.ErrOtherDirectory)
	replace(t, c, 2)
	c.Restart(2)
	expectImages(t, c, all, c.IDs()...)
}

// expectJoin has the node that a join is of send it to node 1.
func expectJoin(
	t *testing.T, c *clustertest.Cluster, r bootstrap.JoinRequest, kind image.Kind, text string,
) {
	t.Helper()
	body, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Node(r.Node).Post(t.Context(), 1, wire.JoinPath, body)
	var e *image.Error
	if !errors.As(err, &e) || e.Kind != kind || e.Hint() == "" || !strings.Contains(e.Detail, text) {
		t.Errorf("join of node %d: %v, want %s with %q and a hint", r.Node, err, kind, text)
	}
}

// TestSecondReplacement takes nodes of five for lost while others are missing. What would leave a shard
// without a quorum is refused with the reason and changes nothing; once the missing node is back, it goes
// on.
func TestSecondReplacement(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Nodes: 5})
	all := putImages(t, c, "kept", 10)
	first, second := neighbours(t, c)
	start := c.Config.Timeouts.Proposal // so that one node has the time to answer
	replacing := with(c, func(cfg *config.Config) {
		cfg.Local.LostData = config.LostDataReplace
		cfg.Timeouts.Start = start
	})
	elsewhere := c.Config.DataDir(second) + "-elsewhere"
	move := func(from, to string) { // as where the right disk is not mounted
		if err := errors.Join(os.RemoveAll(to), os.Rename(from, to)); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(t *testing.T, words ...string) {
		t.Helper()
		version := c.Node(c.Others(first, second)[0]).Membership().Version
		expectRefused(t, c.TryStart(replacing, second), nil,
			append(words, "cannot be rebuilt now", fmt.Sprint("not admitted to the cluster within ", start))...)
		if now := c.Node(c.Others(first, second)[0]).Membership().Version; now != version {
			t.Errorf("the membership is version %d, was %d", now, version)
		}
	}

	t.Run("while a node is down", func(t *testing.T) {
		c.Stop(first, second)
		move(c.Config.DataDir(second), elsewhere)
		refused(t, "are not")
		c.Start(first)
		c.WaitReady(c.Others(second)...)
		replace(t, c, second)
	})
	t.Run("while a node is rebuilt", func(t *testing.T) {
		// Its first rebuild has begun, and it is down again.
		if err := c.Node(second).ProposeJoin(t.Context(), forge(c, first)); err != nil {
			t.Fatal(err)
		}
		<-c.Node(first).Failed()
		c.Stop(first, second)
		move(c.Config.DataDir(second), elsewhere)
		refused(t)
		move(elsewhere, c.Config.DataDir(second)) // it had lost nothing
		c.Start(second)
		replace(t, c, first)
		c.Restart(first, second)
	})
	expectImages(t, c, all, c.IDs()...)
	c.ExpectSettled(t)
}

// neighbours returns two nodes that hold a data shard together.
func neighbours(t *testing.T, c *clustertest.Cluster) (a, b image.NodeID) {
	t.Helper()
	for shard, l := range c.Node(1).Membership().Shards {
		if shard != catalog.SystemShard {
			nodes := catalog.NodesOf(l.Nodes)
			return nodes[0], nodes[1]
		}
	}
	t.Fatal("no shards")
	return 0, 0
}

// TestReplicaIsKeptUntilItsGroupSaysSo tells a node of a layout in which it has no part of a shard any
// more. It keeps its replica, for the shard's group has it.
func TestReplicaIsKeptUntilItsGroupSaysSo(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	core, logs := observer.New(zap.DebugLevel)
	c := clustertest.Start(t, clustertest.Options{Log: core})
	before := map[image.NodeID]map[uint64]catalog.Replica{3: replicasOf(t, c, 3)}
	b, err := json.Marshal(c.Node(3).Membership())
	if err != nil {
		t.Fatal(err)
	}
	told := &catalog.Membership{}
	if err := json.Unmarshal(b, told); err != nil {
		t.Fatal(err)
	}
	told.Version += 1000
	shards := slices.Sorted(maps.Keys(told.Shards))
	for i, shard := range shards[1:] {
		l := told.Shards[shard]
		n := slices.IndexFunc(l.Nodes, func(r catalog.Replica) bool { return r.Node == 3 })
		if i%2 == 0 {
			l.Nodes = slices.Delete(l.Nodes, n, n+1)
		} else {
			l.Nodes[n].Number = 99 // another replica of this node
		}
	}
	c.Node(3).Believe(told)
	clustertest.Poll(t, "the node to look at its replicas twice", func() bool {
		return logs.FilterMessage("replica kept: it is in its group").Len() >= 2*(len(shards)-1)
	})
	expectAlive(t, c, before, 3)
}
