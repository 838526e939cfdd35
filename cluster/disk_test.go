package cluster_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
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

// TestDiskFull fills the disks of three nodes, an ext4 of its own and of another size each. Uploads go
// on for as long as two nodes have room, then are refused with 507; what is kept free stays so, reads
// go on, and when images are removed uploads go on too.
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
		cfg.Limits.DiskFreeBytes, cfg.Limits.ImageBytes = keptFree, fillBytes
	}})
	f := &faults{c: c, cl: c.Client(t, client.Broadcast), bodies: map[string][]byte{}}
	around := 0 // uploads that went around a full node
	var refused error
	for i := 0; refused == nil; i++ {
		full := fullNodes(c)
		name, body := fmt.Sprintf("fill-%d.png", i), clustertest.Image(uint64(i), fillBytes)
		replicas, err := f.fill(t, i, name, body)
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
	clustertest.Poll(t, "all to hear that two nodes are full", func() bool { return len(fullNodes(c)) >= 2 })
	for _, n := range c.Status(1).Nodes {
		if n.DiskFreeBytes < keptFree || n.State != wire.NodeUp || !n.Ready {
			t.Errorf("node %d is %+v; %d bytes are to stay free", n.ID, n, keptFree)
		}
	}
	for _, id := range c.IDs() {
		r := c.DoAgain(t, http.MethodPut, id, clustertest.Path("alice", "more.png"), clustertest.Image(1, fillBytes), nil)
		clustertest.ExpectProblem(t, r, image.KindDiskFull)
	}
	if m := c.Do(http.MethodGet, 1, "/metrics", nil, nil); !strings.Contains(string(m.Body), "\nimgcluster_disk_full 1\n") {
		t.Error("node 1 is full, and its metrics do not say so")
	}
	f.expectAll(t)
	f.makeRoom(t)
	f.expectAll(t)
}

const (
	keptInodes = 200 // limits.disk_free_inodes
	tinyBytes  = 900 // of an image
)

// TestInodesFull fills file systems with few inodes by small images: a node without is full, as one without
// space, keeps what its log needs, and goes on when images are removed. Where others then take the rest of
// them it ends in the worst case, says why it cannot start, and does start once there is room.
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
		cfg.Limits.DiskFreeInodes, cfg.Limits.ImageBytes = keptInodes, fillBytes
	}})
	t.Cleanup(func() { c.Stop(c.IDs()...) }) // before their disks go
	f := &faults{c: c, cl: c.Client(t, client.Broadcast), bodies: map[string][]byte{}}
	var refused error
	for i := 0; refused == nil && i < 2000; i++ {
		_, refused = f.fill(t, i, fmt.Sprintf("tiny-%d.png", i), clustertest.Image(uint64(i), tinyBytes))
	}
	if image.KindOf(refused) != image.KindDiskFull {
		t.Fatalf("after %d small images: %v, want disk-full", len(f.bodies), refused)
	}
	t.Logf("%d small images fit; then: %v", len(f.bodies), refused)
	clustertest.Poll(t, "all to hear that two nodes are full", func() bool { return len(fullNodes(c)) >= 2 })
	for _, n := range c.Status(1).Nodes {
		if n.DiskFreeInodes < keptInodes || n.DiskFull != (n.DiskLacks == wire.LacksInodes) || n.State != wire.NodeUp || !n.Ready {
			t.Errorf("node %d is %+v; %d inodes are to stay free", n.ID, n, keptInodes)
		}
	}
	if m := c.Do(http.MethodGet, 1, "/metrics", nil, nil); !strings.Contains(string(m.Body), "\nimgcluster_disk_full 1\n") ||
		!strings.Contains(string(m.Body), "\nimgcluster_disk_free_inodes 2") {
		t.Error("node 1 has too few inodes, and its metrics do not say so")
	}
	f.expectAll(t)
	f.makeRoom(t)
	f.expectAll(t)
	t.Run("None", func(t *testing.T) { startWithoutInodes(t, c, filepath.Join(dir, "node1")) })
	f.expectAll(t)
}

// startWithoutInodes has others take all inodes of node 1, which then starts again.
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
	if ready || !strings.Contains(refusal.Error, "has 0 free inodes and a start needs") || !strings.Contains(refusal.Hint, "make room on the file system of "+dir) {
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

// fullNodes are those of which all nodes say that they are full.
func fullNodes(c *clustertest.Cluster) (full []image.NodeID) {
	says := map[image.NodeID]int{}
	for _, id := range c.IDs() {
		for _, n := range c.Status(id).Nodes {
			if n.DiskFull {
				says[n.ID]++
			}
		}
	}
	for id, n := range says {
		if n == len(c.IDs()) {
			full = append(full, id)
		}
	}
	return full
}

// fill uploads an image, by broadcast and through single nodes in turn.
func (f *faults) fill(t *testing.T, i int, name string, body []byte) ([]image.NodeID, error) {
	if i%4 == 0 {
		res, err := f.put(t.Context(), name, body, func() io.Reader { return bytes.NewReader(body) })
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
		if r := f.c.DoAgain(t, http.MethodDelete, 1, clustertest.Path("alice", name), nil, nil); r.Status != http.StatusNoContent {
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
		if _, err := f.fill(t, i, fmt.Sprintf("again-%d.png", i), clustertest.Image(uint64(900+i), fillBytes)); err != nil {
			t.Errorf("with room on all nodes: %v", err)
		}
	}
}
