package cluster_test

import (
	"os"
	"slices"
	"testing"

	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/wire"
	"imgcluster/config"
)

// TestDrainingNodeLosesItsDisk removes the data of a node that is drained, perhaps because its disk is
// failing, while its copies are still moved to others.
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
	all := putImages(t, c, "kept", 18)
	changeMember(t, cl, wire.MemberDrain, 3)
	clustertest.Poll(t, "shards to have moved, and copies not yet", func() bool {
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
	awaitCopies(t, c, 1)
	changeMember(t, cl, wire.MemberResume, 3)
	awaitMembers(t, cl, 4)
	c.WaitReady(c.IDs()...)
	expectImages(t, c, all, c.IDs()...)
	c.ExpectSettled(t)
}

// TestStayingNodeLosesItsDisk removes the data of a node while shards that it holds wait for a new member
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
	all := putImages(t, c, "kept", 12)
	n := c.Grow()
	if _, err := cl.ChangeMember(t.Context(), addition(n)); err != nil {
		t.Fatal(err)
	}
	c.Kill(3)
	if err := os.RemoveAll(c.Config.DataDir(3)); err != nil {
		t.Fatal(err)
	}
	c.Start(3)
	clustertest.Poll(t, "node 3 to be up again", func() bool {
		nodes := c.Status(1).Nodes
		return len(nodes) > 2 && nodes[2].State == wire.NodeUp
	})
	c.Start(n.ID)
	awaitMembers(t, cl, 4)
	c.WaitReady(c.IDs()...)
	awaitCopies(t, c, 1)
	expectImages(t, c, all, c.IDs()...)
}
