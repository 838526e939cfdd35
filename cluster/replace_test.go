package cluster_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
	"imgcluster/config"
)

// TestLostDisk takes each node's disk in turn: under its old identity the node is refused, and with
// leave to replace what it had it comes back with all its copies.
func TestLostDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{})
	all := putMany(t, c, "kept", 12)
	for _, id := range c.IDs() {
		before := len(c.Files(t, id, ".img"))
		c.Stop(id)
		if err := os.RemoveAll(c.Config.DataDir(id)); err != nil {
			t.Fatal(err)
		}
		refused(t, c.TryStart(c.Config, id), nil, "another data directory")
		replace(t, c, id)
		expectMany(t, c, all, id)
		if after := len(c.Files(t, id, ".img")); after != before {
			t.Errorf("node %d has %d files after its disk was lost, %d before", id, after, before)
		}
		c.Restart(id) // from now on it is like any other
	}
	expectMany(t, c, all, c.IDs()...)
	c.ExpectSettled(t)
	c.ExpectNoPlaintext(t)

	t.Run("All restart", func(t *testing.T) { testLostWhileDown(t, c, all) })
	t.Run("Older copy", func(t *testing.T) { testOlderCopy(t, c, all) })
	t.Run("Half lost", func(t *testing.T) { testHalfLost(t, c, all) })
}

// replace starts a node that may replace what it had, and waits until it has all its copies.
func replace(t *testing.T, c *clustertest.Cluster, id image.NodeID) {
	t.Helper()
	cfg := with(c, func(cfg *config.Config) { cfg.Local.LostData = config.LostDataReplace })
	if err := c.TryStart(cfg, id); err != nil {
		t.Fatalf("node %d with leave to replace its data: %v", id, err)
	}
	c.WaitReady(c.IDs()...)
	clustertest.Poll(t, "all images to have their copies", func() bool { return c.Status(id).UnderReplicated == 0 })
	c.ExpectSettled(t)
}

// testLostWhileDown empties a disk while all nodes are down, so that no running node can tell.
func testLostWhileDown(t *testing.T, c *clustertest.Cluster, all []stored) {
	c.Stop(c.IDs()...)
	if err := os.RemoveAll(c.Config.DataDir(2)); err != nil {
		t.Fatal(err)
	}
	c.Start(1)
	refused(t, c.TryStart(c.Config, 2), nil, "another data directory")
	c.Start(3)
	c.WaitReady(1, 3)
	replace(t, c, 2)
	expectMany(t, c, all, c.IDs()...)
	t.Run("alone first", func(t *testing.T) {
		c.Stop(c.IDs()...)
		if err := os.RemoveAll(c.Config.DataDir(2)); err != nil {
			t.Fatal(err)
		}
		if err := c.TryStart(c.Config, 2); err != nil { // nobody is there to tell it
			t.Fatal(err)
		}
		refused(t, c.TryStart(c.Config, 1), nil, "new data directory")
		c.Stop(2)
		c.Start(1, 3)
		c.WaitReady(1, 3)
		replace(t, c, 2)
		expectMany(t, c, all, c.IDs()...)
	})
}

// testOlderCopy puts a data directory back as it was before its last start.
func testOlderCopy(t *testing.T, c *clustertest.Cluster, all []stored) {
	dir, older := c.Config.DataDir(3), filepath.Join(t.TempDir(), "older")
	c.Stop(3)
	if err := os.CopyFS(older, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	c.Start(3)
	c.WaitReady(c.IDs()...)
	after := putMany(t, c, "after", 3)
	c.Stop(3)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(older, dir); err != nil {
		t.Fatal(err)
	}
	refused(t, c.TryStart(c.Config, 3), nil, "older copy")
	replace(t, c, 3)
	expectMany(t, c, append(all, after...), c.IDs()...)
}

// testHalfLost takes the Raft log, the catalog, and both, and leaves the images.
func testHalfLost(t *testing.T, c *clustertest.Cluster, all []stored) {
	for _, folders := range [][]string{{"raft"}, {"catalog"}, {"raft", "catalog"}} {
		dir := c.Config.DataDir(1)
		c.Stop(1)
		for _, f := range folders {
			if err := os.RemoveAll(filepath.Join(dir, f)); err != nil {
				t.Fatal(err)
			}
		}
		err := c.TryStart(c.Config, 1)
		refused(t, err, nil, "lost")
		replace(t, c, 1)
		expectMany(t, c, all, 1)
	}
	t.Run("damaged", func(t *testing.T) {
		c.Stop(1)
		damaged := 0
		err := filepath.WalkDir(filepath.Join(c.Config.DataDir(1), "catalog"), func(path string, d fs.DirEntry, err error) error {
			if err == nil && filepath.Base(path)[:min(8, len(filepath.Base(path)))] == "MANIFEST" {
				damaged++
				return os.Truncate(path, 10)
			}
			return err
		})
		if err != nil || damaged == 0 {
			t.Fatalf("%d manifests cut: %v", damaged, err)
		}
		refused(t, c.TryStart(c.Config, 1), nil, "")
		replace(t, c, 1)
		expectMany(t, c, all, c.IDs()...)
	})
}
