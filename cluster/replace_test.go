package cluster_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/bootstrap"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/clustertest/env"
	"imgcluster/cluster/consensus"
	"imgcluster/cluster/image"
	"imgcluster/config"
)

// TestLostDisk removes each node's data in turn, while uploads go on. Under its old identity the node is
// refused; with node.lost_data "replace" it is rebuilt from its peers and has all its copies. There are 12
// images in the beginning, or IMGCLUSTER_WIPES of them.
func TestLostDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{})
	all := putImages(t, c, "kept", env.Number(t, "IMGCLUSTER_WIPES", 12))
	for _, id := range c.IDs() {
		c.Stop(id)
		if err := os.RemoveAll(c.Config.DataDir(id)); err != nil {
			t.Fatal(err)
		}
		expectRefused(t, c.TryStart(c.Config, id), bootstrap.ErrOtherDirectory)
		load := startUploads(t, c, fmt.Sprintf("node-%d-is-down", id))
		began := time.Now()
		startReplacing(t, c, id)
		ready := time.Since(began)
		awaitCopies(t, c, id)
		took := time.Since(began)
		load.end()
		all = append(all, load.all...)
		c.ExpectSettled(t) // it has the files of its records and not one more
		expectImages(t, c, all, c.IDs()...)
		for _, any := range c.IDs() {
			if s := c.Status(any); s.UnderReplicated != 0 || s.Images != int64(len(all)) {
				t.Errorf("node %d counts %d images of %d, %d of them with too few copies",
					any, s.Images, len(all), s.UnderReplicated)
			}
		}
		t.Logf("node %d rebuilt: ready after %.1f s, its %d copies there after %.1f s",
			id, ready.Seconds(), len(c.Files(t, id, ".img")), took.Seconds())
		t.Logf("%d images, %d of them uploaded meanwhile", len(all), len(load.all))
		c.Restart(id) // without --replace, like any other
	}
	expectImages(t, c, all, c.IDs()...)
	c.ExpectSettled(t)
	c.ExpectNoPlaintext(t)

	t.Run("All restart", func(t *testing.T) { testLostWhileDown(t, c, all) })
	t.Run("Older copy", func(t *testing.T) { testOlderCopy(t, c, all) })
	t.Run("Half lost", func(t *testing.T) { testHalfLost(t, c, all) })
}

// replace starts a node that may replace its data, and waits until it has all its copies.
func replace(t *testing.T, c *clustertest.Cluster, id image.NodeID) {
	t.Helper()
	startReplacing(t, c, id)
	awaitRebuilt(t, c, id)
	awaitCopies(t, c, id)
	c.ExpectSettled(t)
}

func startReplacing(t *testing.T, c *clustertest.Cluster, id image.NodeID) {
	t.Helper()
	cfg := with(c, func(cfg *config.Config) { cfg.Local.LostData = config.LostDataReplace })
	if err := c.TryStart(cfg, id); err != nil {
		t.Fatalf("node %d with node.lost_data=replace: %v", id, err)
	}
	c.WaitReady(c.IDs()...)
}

// awaitRebuilt waits until all replicas count as having their data. The leaders say that of one a moment
// after its node is ready; until then, no other node of the shard may be rebuilt.
func awaitRebuilt(t *testing.T, c *clustertest.Cluster, id image.NodeID) {
	t.Helper()
	clustertest.Poll(t, "all replicas to have their data", func() bool {
		for _, l := range c.Node(id).Membership().Shards {
			if len(l.New) > 0 {
				return false
			}
		}
		return true
	})
}

// awaitCopies waits until all images have their copies, as a node counts them.
func awaitCopies(t *testing.T, c *clustertest.Cluster, id image.NodeID) {
	t.Helper()
	clustertest.Poll(t, "all images to have their copies", func() bool {
		return c.Status(id).UnderReplicated == 0
	})
}

// testLostWhileDown removes a node's data while all nodes are down.
func testLostWhileDown(t *testing.T, c *clustertest.Cluster, all []stored) {
	c.Stop(c.IDs()...)
	if err := os.RemoveAll(c.Config.DataDir(2)); err != nil {
		t.Fatal(err)
	}
	c.Start(1)
	expectRefused(t, c.TryStart(c.Config, 2), bootstrap.ErrOtherDirectory)
	c.Start(3)
	c.WaitReady(1, 3)
	replace(t, c, 2)
	expectImages(t, c, all, c.IDs()...)
	t.Run("alone first", func(t *testing.T) {
		c.Stop(c.IDs()...)
		if err := os.RemoveAll(c.Config.DataDir(2)); err != nil {
			t.Fatal(err)
		}
		if err := c.TryStart(c.Config, 2); err != nil { // no other node is up that would refuse it
			t.Fatal(err)
		}
		expectRefused(t, c.TryStart(c.Config, 1), bootstrap.ErrPeerLostData)
		c.Stop(2)
		c.Start(1, 3)
		c.WaitReady(1, 3)
		replace(t, c, 2)
		expectImages(t, c, all, c.IDs()...)
	})
}

// testOlderCopy puts a data directory back as it was before its last start.
func testOlderCopy(t *testing.T, c *clustertest.Cluster, all []stored) {
	dir := c.Config.DataDir(3)
	older := filepath.Join(t.TempDir(), "older")
	c.Stop(3)
	if err := os.CopyFS(older, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	c.Start(3)
	c.WaitReady(c.IDs()...)
	after := putImages(t, c, "after", 3)
	c.Stop(3)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(older, dir); err != nil {
		t.Fatal(err)
	}
	expectRefused(t, c.TryStart(c.Config, 3), bootstrap.ErrOlderCopy)
	replace(t, c, 3)
	expectImages(t, c, append(all, after...), c.IDs()...)
}

// testHalfLost removes the Raft log, the catalog, and both, and leaves the images.
func testHalfLost(t *testing.T, c *clustertest.Cluster, all []stored) {
	for _, folders := range [][]string{{"raft"}, {"catalog"}, {"raft", "catalog"}} {
		dir := c.Config.DataDir(1)
		c.Stop(1)
		for _, f := range folders {
			if err := os.RemoveAll(filepath.Join(dir, f)); err != nil {
				t.Fatal(err)
			}
		}
		want := consensus.ErrDamaged
		if len(folders) == 2 {
			want = bootstrap.ErrLostRaft
		}
		expectRefused(t, c.TryStart(c.Config, 1), want)
		replace(t, c, 1)
		expectImages(t, c, all, 1)
	}
	t.Run("damaged", func(t *testing.T) {
		c.Stop(1)
		damaged := 0
		catalog := filepath.Join(c.Config.DataDir(1), "catalog")
		err := filepath.WalkDir(catalog, func(path string, d fs.DirEntry, err error) error {
			if err == nil && strings.HasPrefix(d.Name(), "MANIFEST") {
				damaged++
				return os.Truncate(path, 10)
			}
			return err
		})
		if err != nil || damaged == 0 {
			t.Fatalf("%d manifests cut: %v", damaged, err)
		}
		expectRefused(t, c.TryStart(c.Config, 1), nil, "")
		replace(t, c, 1)
		expectImages(t, c, all, c.IDs()...)
	})
}
