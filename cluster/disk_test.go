//go:build linux

package cluster_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/clustertest/loopfs"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/config"
)

const (
	keptFree  = 16 << 20 // limits.disk_free_bytes
	fillBytes = 2 << 20  // limits.image_bytes, and the size of an image
)

// TestDiskFull fills the disks of three nodes, each an ext4 of its own and of another size. Uploads succeed
// for as long as two nodes have room, then are refused with 507. What is kept free stays free, reads go on,
// and when images are removed uploads succeed again.
func TestDiskFull(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	dir := t.TempDir()
	for i, size := range []int64{80 << 20, 104 << 20, 128 << 20} {
		loopfs.New(t, filepath.Join(dir, fmt.Sprint("node", i+1)), size)
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Dir: dir, Change: func(cfg *config.Config) {
		cfg.Limits.DiskFreeBytes = keptFree
		cfg.Limits.ImageBytes = fillBytes
	}})
	f := &faults{c: c, cl: c.Client(t, client.Broadcast), bodies: map[string][]byte{}}
	around := 0 // uploads that went around a full node
	var refused error
	for i := 0; refused == nil; i++ {
		full := fullNodes(c)
		name := fmt.Sprintf("fill-%d.png", i)
		body := clustertest.Image(uint64(i), fillBytes)
		replicas, err := f.upload(t, i, name, body)
		if refused = err; err != nil {
			break
		}
		if slices.ContainsFunc(replicas, func(id image.NodeID) bool { return slices.Contains(full, id) }) {
			t.Errorf("%s went to nodes %v, of which %v were full", name, replicas, full)
		}
		if len(full) > 0 {
			around++
		}
	}
	if image.KindOf(refused) != image.KindDiskFull || around == 0 {
		t.Fatalf("after %d uploads around a full node: %v, want disk-full", around, refused)
	}
	t.Logf("%d images fit, %d of them around a full node; then: %v", len(f.bodies), around, refused)
	awaitFull(t, c, 2)
	for _, n := range c.Status(1).Nodes {
		if n.DiskFreeBytes < keptFree || n.State != wire.NodeUp || !n.Ready {
			t.Errorf("node %d is %+v; %d bytes are to stay free", n.ID, n, keptFree)
		}
	}
	for _, id := range c.IDs() {
		path := clustertest.Path("alice", "more.png")
		r := c.DoAgain(t, http.MethodPut, id, path, clustertest.Image(1, fillBytes), nil)
		clustertest.ExpectProblem(t, r, image.KindDiskFull)
	}
	if full := metric(t, c, 1, "imgcluster_disk_full"); full != 1 {
		t.Errorf("disk_full %d by the metrics", full)
	}
	f.expectAll(t)
	f.makeRoom(t)
	f.expectAll(t)
}

const (
	keptInodes = 200 // limits.disk_free_inodes
	logInodes  = 20  // of them, which the log may be using
	tinyBytes  = 900 // of an image
)

// TestInodesFull fills file systems of few inodes with small images. A node without free inodes is full, like
// one without free space: it keeps what its log needs, and accepts images again when others are removed. When
// another program takes the last inodes, the node refuses to start, says why, and starts once there is room.
func TestInodesFull(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	dir := t.TempDir()
	for i, inodes := range []string{"800", "896", "992"} {
		loopfs.New(t, filepath.Join(dir, fmt.Sprint("node", i+1)), 128<<20, "-N", inodes)
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Dir: dir, Processes: true, Change: func(cfg *config.Config) {
		cfg.Limits.DiskFreeInodes = keptInodes
		cfg.Limits.ImageBytes = fillBytes
	}})
	t.Cleanup(func() { c.Stop(c.IDs()...) }) // before their disks are unmounted
	f := &faults{c: c, cl: c.Client(t, client.Broadcast), bodies: map[string][]byte{}}
	var refused error
	for i := 0; refused == nil && i < 2000; i++ {
		_, refused = f.upload(t, i, fmt.Sprintf("tiny-%d.png", i), clustertest.Image(uint64(i), tinyBytes))
	}
	if image.KindOf(refused) != image.KindDiskFull {
		t.Fatalf("after %d small images: %v, want disk-full", len(f.bodies), refused)
	}
	t.Logf("%d small images fit; then: %v", len(f.bodies), refused)
	awaitFull(t, c, 2)
	for _, n := range c.Status(1).Nodes {
		serves := n.State == wire.NodeUp && n.Ready
		if !serves || n.DiskFreeInodes < keptInodes-logInodes || n.DiskFull != (n.DiskLacks == wire.LacksInodes) {
			t.Errorf("node %d is %+v; images are to leave %d inodes free", n.ID, n, keptInodes)
		}
	}
	if metric(t, c, 1, "imgcluster_disk_full") != 1 {
		t.Error("a full disk is not full by the metrics")
	}
	free := metric(t, c, 1, "imgcluster_disk_free_inodes")
	if free < keptInodes-logInodes || free >= 2*keptInodes {
		t.Errorf("%d free inodes by the metrics", free)
	}
	f.expectAll(t)
	f.makeRoom(t)
	f.expectAll(t)
	t.Run("None", func(t *testing.T) { startWithoutInodes(t, c, filepath.Join(dir, "node1")) })
	f.expectAll(t)
}

// startWithoutInodes has another program take all inodes of node 1, which must then refuse to start.
func startWithoutInodes(t *testing.T, c *clustertest.Cluster, dir string) {
	c.Stop(1)
	hog := filepath.Join(dir, "images", "tmp", "hog")
	if err := os.Mkdir(hog, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		err := os.WriteFile(filepath.Join(hog, fmt.Sprint(i)), nil, 0o600)
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	c.Start(1)
	refusal, ready := c.ReadyOrRefused(t, 1)
	if ready || !strings.Contains(refusal.Error, "inodes") || !strings.Contains(refusal.Hint, dir) {
		t.Errorf("a start without inodes: ready %t, %+v", ready, refusal)
	}
	if err := os.RemoveAll(hog); err != nil {
		t.Fatal(err)
	}
	if ready {
		c.Stop(1)
	}
	c.Start(1)
	c.WaitReady(c.IDs()...)
}

// metric returns a whole number from a node's metrics.
func metric(t *testing.T, c *clustertest.Cluster, id image.NodeID, name string) (n int) {
	t.Helper()
	_, rest, ok := strings.Cut(string(c.Do(http.MethodGet, id, "/metrics", nil, nil).Body), "\n"+name+" ")
	if _, err := fmt.Sscan(rest, &n); !ok || err != nil {
		t.Errorf("the metrics of node %d have no number %s: %v", id, name, err)
	}
	return n
}

// awaitFull waits until all nodes report that so many are full.
func awaitFull(t *testing.T, c *clustertest.Cluster, count int) {
	t.Helper()
	what := fmt.Sprintf("%d nodes full", count)
	clustertest.Poll(t, what, func() bool { return len(fullNodes(c)) >= count })
}

// fullNodes returns the nodes of which all nodes report that they are full.
func fullNodes(c *clustertest.Cluster) (full []image.NodeID) {
	reports := map[image.NodeID]int{}
	for _, id := range c.IDs() {
		for _, n := range c.Status(id).Nodes {
			if n.DiskFull {
				reports[n.ID]++
			}
		}
	}
	for id, n := range reports {
		if n == len(c.IDs()) {
			full = append(full, id)
		}
	}
	return full
}

// upload uploads an image, by broadcast and through single nodes in turn.
func (f *faults) upload(t *testing.T, i int, name string, body []byte) ([]image.NodeID, error) {
	if i%4 == 0 {
		res, err := f.put(t.Context(), uploadOf(name, body), body)
		if err != nil {
			return nil, err
		}
		return res.Receipt.Replicas, nil
	}
	r := f.c.DoAgain(t, http.MethodPut, image.NodeID(i%4), clustertest.Path("alice", name), body, nil)
	if r.Status >= 300 {
		return nil, r.Problem.Err()
	}
	f.bodies[name] = body
	return clustertest.Receipt(t, r).Replicas, nil
}

// makeRoom deletes images until all nodes have room again, and uploads one.
func (f *faults) makeRoom(t *testing.T) {
	for name := range f.bodies {
		if len(f.bodies) <= 8 {
			break
		}
		r := f.c.DoAgain(t, http.MethodDelete, 1, clustertest.Path("alice", name), nil, nil)
		if r.Status != http.StatusNoContent {
			t.Fatalf("delete %s: status %d, %s", name, r.Status, r.Body)
		}
		delete(f.bodies, name)
	}
	clustertest.Poll(t, "room on all nodes", func() bool {
		for _, id := range f.c.IDs() {
			for _, n := range f.c.Status(id).Nodes {
				if n.DiskFull {
					return false
				}
			}
		}
		return true
	})
	for i := range 4 {
		body := clustertest.Image(uint64(900+i), fillBytes)
		if _, err := f.upload(t, i, fmt.Sprintf("again-%d.png", i), body); err != nil {
			t.Errorf("with room on all nodes: %v", err)
		}
	}
}
