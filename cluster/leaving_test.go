package cluster_test

import (
	"os"
	"slices"
	"testing"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/wire"
	"imgcluster/config"
)

// TestDrainingNodeLosesItsDisk takes the disk of a node that is drained, often for that very reason, while
// its copies are still on their way to others.
func TestDrainingNodeLosesItsDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Nodes: 4, Processes: true, Change: func(cfg *config.Config) {
		cfg.Repair.Rate = 100_000 // most of a second for an image
		cfg.Local.LostData = config.LostDataReplace
	}})
	cl := c.Client(t, client.Relay)
	all := putMany(t, c, "kept", 18)
	change(t, cl, wire.MemberDrain, 3)
	clustertest.Poll(t, "shards to be elsewhere, and copies to be here", func() bool {
		for _, s := range c.Status(1).Shards[1:] {
			if slices.Contains(s.Nodes, 3) {
				return false
			}
		}
		list, err := cl.Members(t.Context())
		return err == nil && list[2].Moving > 0 && list[2].Images > 0
	})
	c.Kill(3)
	if err := os.RemoveAll(c.Config.DataDir(3)); err != nil {
		t.Fatal(err)
	}
	c.Start(3)
	clustertest.Poll(t, "node 3 to be empty", func() bool {
		if c.Dead(3) {
			_, err := c.Died(3)
			t.Fatalf("node 3 ended: %v", err)
		}
		list, err := cl.Members(t.Context())
		return err == nil && list[2].Images == 0 && list[2].Shards == 0 && list[2].Moving == 0
	})
	clustertest.Poll(t, "all images to have their copies", func() bool { return c.Status(1).UnderReplicated == 0 })
	change(t, cl, wire.MemberResume, 3)
	settled(t, cl, 4)
	c.WaitReady(c.IDs()...)
	expectMany(t, c, all, c.IDs()...)
	c.ExpectSettled(t)
}

// TestStayingNodeLosesItsDisk takes the disk of a node while the shards that it holds wait for a new member
// that does not run yet.
func TestStayingNodeLosesItsDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Processes: true, Change: func(cfg *config.Config) {
		cfg.Local.LostData = config.LostDataReplace
	}})
	cl := c.Client(t, client.Relay)
	all := putMany(t, c, "kept", 12)
	n := c.Grow()
	if _, err := cl.ChangeMember(t.Context(), wire.MemberChange{Op: wire.MemberAdd, ID: n.ID, API: n.APIAddr(), Raft: n.RaftAddr()}); err != nil {
		t.Fatal(err)
	}
	c.Kill(3)
	if err := os.RemoveAll(c.Config.DataDir(3)); err != nil {
		t.Fatal(err)
	}
	c.Start(3)
	time.Sleep(time.Second)
	c.Start(n.ID)
	settled(t, cl, 4)
	c.WaitReady(c.IDs()...)
	clustertest.Poll(t, "all images to have their copies", func() bool { return c.Status(1).UnderReplicated == 0 })
	expectMany(t, c, all, c.IDs()...)
}
