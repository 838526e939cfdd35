package cluster_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
	"imgcluster/config"
)

// stored is an image that a test has put.
type stored struct {
	name string
	body []byte
	id   image.ID
}

// putStored stores an image of alice through a node.
func putStored(t *testing.T, c *clustertest.Cluster, at image.NodeID, name string, body []byte) stored {
	t.Helper()
	s := stored{name: name, body: body, id: image.NewID()}
	c.Put(t, at, "alice", name, body, http.Header{"Idempotency-Key": {s.id.String()}})
	return s
}

func putImages(t *testing.T, c *clustertest.Cluster, prefix string, n int) (all []stored) {
	t.Helper()
	for i := range n {
		body := clustertest.Image(uint64(500+i), 150_000+i)
		all = append(all, putStored(t, c, c.IDs()[i%2], fmt.Sprintf("%s-%d.png", prefix, i), body))
	}
	return all
}

func expectImages(t *testing.T, c *clustertest.Cluster, all []stored, ids ...image.NodeID) {
	t.Helper()
	for _, s := range all {
		c.ExpectImage(t, "alice", s.name, s.body, ids...)
	}
}

func TestRepair(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Change: func(cfg *config.Config) {
		cfg.Repair.Delay = time.Second
	}})
	t.Run("Read", func(t *testing.T) { testRepairOnRead(t, c) })
	t.Run("Verify", func(t *testing.T) { testVerify(t, c) })
	t.Run("NodeDown", func(t *testing.T) { testNodeDown(t, c) })
	c.ExpectNoPlaintext(t)
}

// testRepairOnRead damages each copy in turn and reads the image through its node, which returns the right
// bytes and replaces the copy.
func testRepairOnRead(t *testing.T, c *clustertest.Cluster) {
	s := putImages(t, c, "read", 1)[0]
	for _, id := range c.IDs() {
		files := c.FilesOf(t, id, s.id)
		if len(files) == 0 {
			continue
		}
		before, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		clustertest.FlipByte(t, files[0], int64(len(before)/2))
		c.ExpectImage(t, "alice", s.name, s.body, id) // from the damaged segment on, from elsewhere
		clustertest.Poll(t, "the damaged copy to be replaced", func() bool {
			bad, _ := c.Verify(t, id, false)
			return len(bad) == 0
		})
		c.ExpectImage(t, "alice", s.name, s.body, c.IDs()...)
	}
	c.ExpectSettled(t)
}

// testVerify flips, cuts, swaps and removes files of one node. Verify lists each of them, and repairs them
// when asked to.
func testVerify(t *testing.T, c *clustertest.Cluster) {
	all := putImages(t, c, "verify", 10)
	const node = 2
	var mine []stored
	for _, s := range all {
		if len(c.FilesOf(t, node, s.id)) == 1 {
			mine = append(mine, s)
		}
	}
	if len(mine) < 5 {
		t.Fatalf("node %d has %d of %d images", node, len(mine), len(all))
	}
	path := func(i int) string { return c.FilesOf(t, node, mine[i].id)[0] }
	swapped, err := os.ReadFile(path(4))
	if err != nil {
		t.Fatal(err)
	}
	clustertest.FlipByte(t, path(0), 3)
	err = errors.Join(os.Truncate(path(1), 100_000), os.WriteFile(path(3), swapped, 0o600), os.Remove(path(2)))
	if err != nil {
		t.Fatal(err)
	}
	bad, end := c.Verify(t, node, false)
	var names []string
	for _, b := range bad {
		names = append(names, b.Name)
		if b.Problem == "" || b.Fixed || b.User != "alice" || b.Upload == "" {
			t.Errorf("finding %+v", b)
		}
	}
	slices.Sort(names)
	want := []string{mine[0].name, mine[1].name, mine[2].name, mine[3].name}
	slices.Sort(want)
	if !slices.Equal(names, want) || end.Bad != 4 || end.Repaired != 0 || end.Images != end.OfImages {
		t.Errorf("verify found %v, want %v; its sum %+v", names, want, end.VerifySummary)
	}
	expectImages(t, c, all, 1, 3)
	if bad, end = c.Verify(t, node, true); end.Bad != end.Repaired {
		t.Errorf("%d of %d bad copies were repaired: %+v", end.Repaired, end.Bad, bad)
	}
	if bad, end = c.Verify(t, node, false); end.Bad != 0 {
		t.Errorf("after the repair: %+v", bad)
	}
	expectImages(t, c, all, c.IDs()...)
	c.ExpectSettled(t)
	for _, q := range []string{"sample=0", "sample=2", "sample=x", "repair=maybe"} {
		clustertest.ExpectProblem(t, c.Do(http.MethodPost, node, "/v1/verify?"+q, nil, nil), image.KindInvalid)
	}
	sampled := c.Do(http.MethodPost, node, "/v1/verify?sample=0.5", nil, nil)
	if sampled.Status != http.StatusOK || !strings.Contains(string(sampled.Body), `"type":"end"`) {
		t.Errorf("status %d: %s", sampled.Status, sampled.Body)
	}
}

// testNodeDown stops a node for longer than repair.delay: its copies are rebuilt on the others. When it is up
// again it removes its own.
func testNodeDown(t *testing.T, c *clustertest.Cluster) {
	all := putImages(t, c, "gone", 10)
	c.Stop(3)
	clustertest.Poll(t, "images to lack copies", func() bool { return c.Status(1).UnderReplicated > 0 })
	clustertest.Poll(t, "the copies to be rebuilt", func() bool {
		return c.Status(1).UnderReplicated == 0 && c.Status(2).UnderReplicated == 0
	})
	for _, s := range all {
		for _, id := range []image.NodeID{1, 2} {
			if files := c.FilesOf(t, id, s.id); len(files) != 1 {
				t.Errorf("files %v of %s on node %d", files, s.name, id)
			}
		}
	}
	expectImages(t, c, all, 1, 2)
	c.Start(3)
	c.WaitReady(c.IDs()...)
	expectImages(t, c, all, 3)
	c.ExpectSettled(t)
	if n := len(c.Files(t, 3, ".img")); n != 0 {
		t.Errorf("node 3 has %d files, and all images have their copies elsewhere", n)
	}
	c.Put(t, 3, "alice", "back.png", []byte("hello"), nil)
}

// TestCatchUp uploads while a node is down and three copies are wanted: the node gets them when it is up
// again. A scrub finds a damaged copy that nobody reads.
func TestCatchUp(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Change: func(cfg *config.Config) {
		cfg.Cluster.Replicas = 3
		cfg.Repair.ScrubEvery = time.Second
	}})
	c.Stop(3)
	all := putImages(t, c, "missed", 5)
	if s := c.Status(1); s.UnderReplicated != int64(len(all)) {
		t.Errorf("%d images lack copies, want %d", s.UnderReplicated, len(all))
	}
	c.Start(3)
	c.WaitReady(c.IDs()...)
	clustertest.Poll(t, "node 3 to catch up", func() bool { return c.Status(3).UnderReplicated == 0 })
	c.ExpectSettled(t)
	files := c.Files(t, 3, ".img")
	if len(files) != len(all) {
		t.Fatalf("node 3 has the files %v", files)
	}
	clustertest.FlipByte(t, files[0], 5000)
	clustertest.Poll(t, "the scrub to replace the damaged copy", func() bool {
		bad, _ := c.Verify(t, 3, false)
		return len(bad) == 0
	})
	expectImages(t, c, all, c.IDs()...)
}
