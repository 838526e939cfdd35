package cluster_test

import (
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

// stored is an image that a test has put, and where its upload ID leads.
type stored struct {
	name string
	body []byte
	id   image.ID
}

func putMany(t *testing.T, c *clustertest.Cluster, prefix string, n int) (all []stored) {
	t.Helper()
	for i := range n {
		s := stored{name: fmt.Sprintf("%s-%d.png", prefix, i), body: clustertest.Image(uint64(500+i), 150_000+i), id: image.NewID()}
		ids := c.IDs()
		c.Put(t, ids[i%2], "alice", s.name, s.body, http.Header{"Idempotency-Key": {s.id.String()}})
		all = append(all, s)
	}
	return all
}

func expectMany(t *testing.T, c *clustertest.Cluster, all []stored, ids ...image.NodeID) {
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
	c := clustertest.Start(t, clustertest.Options{Change: func(cfg *config.Config) { cfg.Repair.Delay = time.Second }})
	t.Run("Read", func(t *testing.T) { testRepairOnRead(t, c) })
	t.Run("Verify", func(t *testing.T) { testVerify(t, c) })
	t.Run("Gone", func(t *testing.T) { testGone(t, c) })
	c.ExpectNoPlaintext(t)
}

// testRepairOnRead damages a copy, and reads the image through the other node with a copy and one
// without. The damaged one is replaced without more ado.
func testRepairOnRead(t *testing.T, c *clustertest.Cluster) {
	s := putMany(t, c, "read", 1)[0]
	for _, id := range c.IDs() {
		files := c.FilesOf(t, id, s.id)
		if len(files) == 0 {
			continue
		}
		before, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		flip(t, files[0], int64(len(before)/2))
		c.ExpectImage(t, "alice", s.name, s.body, id) // from the damaged segment on, from elsewhere
		clustertest.Poll(t, "the damaged copy to be replaced", func() bool {
			bad, _ := c.Verify(t, id, false)
			return len(bad) == 0
		})
		c.ExpectImage(t, "alice", s.name, s.body, c.IDs()...)
	}
	c.ExpectSettled(t)
}

// testVerify does to one node's files what a disk may do. Verify lists each of them, and repairs them
// when asked to.
func testVerify(t *testing.T, c *clustertest.Cluster) {
	all := putMany(t, c, "verify", 10)
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
	flip(t, path(0), 3)
	for i, err := range []error{os.Truncate(path(1), 100_000), os.WriteFile(path(3), swapped, 0o600), os.Remove(path(2))} {
		if err != nil {
			t.Fatal(i, err)
		}
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
	expectMany(t, c, all, 1, 3)
	if bad, end = c.Verify(t, node, true); end.Bad != end.Repaired {
		t.Errorf("%d of %d bad copies were repaired: %+v", end.Repaired, end.Bad, bad)
	}
	if bad, end = c.Verify(t, node, false); end.Bad != 0 {
		t.Errorf("after the repair: %+v", bad)
	}
	expectMany(t, c, all, c.IDs()...)
	c.ExpectSettled(t)
	for _, q := range []string{"sample=0", "sample=2", "sample=x", "repair=maybe"} {
		clustertest.ExpectProblem(t, c.Do(http.MethodPost, node, "/v1/verify?"+q, nil, nil), image.KindInvalid)
	}
	sampled := c.Do(http.MethodPost, node, "/v1/verify?sample=0.5", nil, nil)
	if sampled.Status != http.StatusOK || !strings.Contains(string(sampled.Body), `"type":"end"`) {
		t.Errorf("status %d: %s", sampled.Status, sampled.Body)
	}
}

// testGone takes a node away for longer than its copies are waited for: the others make them anew.
// When it comes back what it has is garbage.
func testGone(t *testing.T, c *clustertest.Cluster) {
	all := putMany(t, c, "gone", 10)
	c.Stop(3)
	clustertest.Poll(t, "images to lack copies", func() bool { return c.Status(1).UnderReplicated > 0 })
	clustertest.Poll(t, "the copies to be made anew", func() bool { return c.Status(1).UnderReplicated == 0 && c.Status(2).UnderReplicated == 0 })
	for _, s := range all {
		for _, id := range []image.NodeID{1, 2} {
			if files := c.FilesOf(t, id, s.id); len(files) != 1 {
				t.Errorf("files %v of %s on node %d", files, s.name, id)
			}
		}
	}
	expectMany(t, c, all, 1, 2)
	c.Start(3)
	c.WaitReady(c.IDs()...)
	expectMany(t, c, all, 3)
	c.ExpectSettled(t)
	if n := len(c.Files(t, 3, ".img")); n != 0 {
		t.Errorf("node 3 has %d files, and all images have their copies elsewhere", n)
	}
	c.Put(t, 3, "alice", "back.png", []byte("hello"), nil)
}

// TestCatchUp uploads while a node is down, three copies being wanted: it gets them when it is back. A
// scrub finds a damaged copy that nobody reads.
func TestCatchUp(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Change: func(cfg *config.Config) {
		cfg.Cluster.Replicas, cfg.Repair.ScrubEvery = 3, time.Second
	}})
	c.Stop(3)
	all := putMany(t, c, "missed", 5)
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
	flip(t, files[0], 5000)
	clustertest.Poll(t, "the scrub to replace the damaged copy", func() bool {
		bad, _ := c.Verify(t, 3, false)
		return len(bad) == 0
	})
	expectMany(t, c, all, c.IDs()...)
}
