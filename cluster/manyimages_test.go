package cluster_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"imgcluster/cluster"
	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/clustertest/env"
	"imgcluster/config"
)

// fillStep is how many images one command has the records of, at most.
const fillStep = 12_000

// fill gives the nodes of a cluster in this process the records and the files of that many images of alice.
func fill(t testing.TB, c *clustertest.Cluster, images int) {
	t.Helper()
	shards := c.Config.Cluster.DataShards
	for from := 0; from < images; from += fillStep {
		f := cluster.Fill{User: "alice", From: from, To: min(images, from+fillStep), Shards: shards}
		if err := c.Node(1).Fill(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		var g errgroup.Group
		for _, id := range c.IDs() {
			g.Go(func() error { return cluster.MakeFiles(c.Config.DataDir(id), id, f) })
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

// ordinary gives a test's cluster the settings of any other one, but for its addresses and folders.
func ordinary(cfg *config.Config) {
	def := config.Default()
	cfg.Cluster.DataShards, cfg.Limits = def.Cluster.DataShards, def.Limits
	cfg.Raft, cfg.Timeouts, cfg.Repair = def.Raft, def.Timeouts, def.Repair
}

// patient has proposals wait for commands that take long. One that is lost while the nodes start is made
// again before the test gives them up.
func patient(cfg *config.Config) {
	cfg.Timeouts.ProposalAttempt, cfg.Timeouts.Proposal = 10*time.Second, time.Minute
}

// manyRSSMax is the memory of a node, whatever the number of its images.
const manyRSSMax = 256 << 20

// TestManyImages: nodes with many images start, list them all, and miss none of their copies, in memory that
// does not grow with their number. IMGCLUSTER_IMAGES is the number; with IMGCLUSTER_DIR the cluster stays
// there afterwards, and imgcluster.yaml is in it.
func TestManyImages(t *testing.T) {
	images := env.Number(t, "IMGCLUSTER_IMAGES", 3000)
	dir := os.Getenv("IMGCLUSTER_DIR")
	if dir == "" {
		dir = t.TempDir()
	}
	shards := env.Number(t, "IMGCLUSTER_SHARDS", config.Default().Cluster.DataShards)
	ordinarily := config.Config{}
	first := clustertest.Start(t, clustertest.Options{Dir: dir, Change: func(cfg *config.Config) {
		ordinary(cfg)
		cfg.Cluster.DataShards = shards
		ordinarily = *cfg
		patient(cfg)
	}})
	first.Put(t, 1, "alice", "first.png", []byte("x"), nil) // makes alice's key
	fill(t, first, images)
	first.Stop(first.IDs()...)
	b, err := ordinarily.YAML()
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "imgcluster.yaml"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}

	c := clustertest.New(t, clustertest.Options{
		Dir: dir, Processes: true, Change: func(cfg *config.Config) { *cfg = ordinarily },
	})
	began := time.Now()
	c.StartAll()
	ready := time.Since(began)
	cl := c.Client(t, client.Broadcast)
	began, listed := time.Now(), 0
	for _, err := range cl.All(t.Context(), "alice", "") {
		if err != nil {
			t.Fatal(err)
		}
		listed++
	}
	took := time.Since(began)
	if listed != images+1 {
		t.Errorf("%d images are listed, want %d", listed, images+1)
	}
	clustertest.Poll(t, "all copies counted", func() bool { // by the first sweep
		files := int64(0)
		s, err := cl.Cluster(t.Context())
		for _, n := range s.Nodes {
			files += n.Files
		}
		return err == nil && files == 2*int64(images+1)
	})
	s, err := cl.Cluster(t.Context())
	if err != nil || s.Images != int64(images+1) || s.UnderReplicated != 0 {
		t.Fatalf("%d images, %d with too few copies, %v", s.Images, s.UnderReplicated, err)
	}
	memory := ""
	for _, n := range s.Nodes {
		memory += fmt.Sprintf(" %d MB", n.RSSBytes/1e6)
		if n.RSSBytes > manyRSSMax {
			t.Errorf("node %d has %d bytes in memory", n.ID, n.RSSBytes)
		}
	}
	t.Logf("%d images: ready after %v, listed in %v, memory%s", images, ready, took, memory)
	if r := c.Do(http.MethodGet, 2, clustertest.Path("alice", "first.png"), nil, nil); string(r.Body) != "x" {
		t.Errorf("first.png is %q, status %d", r.Body, r.Status)
	}
}
