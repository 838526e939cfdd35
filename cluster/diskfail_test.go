package cluster_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/clustertest/loopfs"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

const imagesDiskBytes = 64 << 20

// TestDiskFails has the disk fail that one node keeps its images on: a real ext4, of which every
// operation returns EIO while Raft's log, elsewhere, goes on. Nothing is stored there until the disk is
// back and all that is on it was read.
func TestDiskFails(t *testing.T) {
	c, disk := startWithImagesOn(t, 2)
	f := &faults{c: c, cl: c.Client(t, client.Broadcast), bodies: map[string][]byte{}}
	for i := range 8 {
		f.mustFill(t, i, fmt.Sprintf("before-%d.png", i))
	}
	files := c.Files(t, 2, ".img")
	if len(files) == 0 {
		t.Fatal("node 2 has no image")
	}
	flip(t, files[0], 5000) // nobody has read it since
	unix.Sync()
	if err := disk.Cut(); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		if replicas := f.mustFill(t, i, fmt.Sprintf("without-%d.png", i)); slices.Contains(replicas, 2) {
			t.Errorf("node 2 acknowledged upload %d on a disk that does not work", i)
		}
	}
	ready := c.Do(http.MethodGet, 2, "/readyz", nil, nil)
	if ready.Status != http.StatusServiceUnavailable || !strings.Contains(ready.Problem.Detail, "disk failed") || !strings.Contains(ready.Problem.Detail, "input/output error") {
		t.Errorf("/readyz of a node whose disk failed: status %d, %q", ready.Status, ready.Body)
	}
	clustertest.Poll(t, "node 1 to hear of it", func() bool {
		s := c.Status(1)
		return len(s.Nodes) == 3 && strings.Contains(s.Nodes[1].Problem, "disk failed") && !s.Nodes[1].Ready && s.Nodes[1].State == wire.NodeUp
	})
	if m := c.Do(http.MethodGet, 2, "/metrics", nil, nil); !strings.Contains(string(m.Body), "\nimgcluster_disk_failed 1\n") {
		t.Error("the metrics of node 2 do not say that its disk failed")
	}
	for name, body := range f.bodies {
		c.ExpectImage(t, "alice", name, body, c.IDs()...)
	}
	disk.Remount(t)
	c.WaitReady(c.IDs()...)
	if bad, _ := c.Verify(t, 2, false); len(bad) > 0 {
		t.Errorf("node 2 came back with the bad copies %+v", bad)
	}
	f.expectAll(t)
	t.Run("Restarted", func(t *testing.T) { // the next process does not take what is there for good either
		flip(t, c.Files(t, 2, ".img")[0], 5000)
		unix.Sync()
		if err := disk.Cut(); err != nil {
			t.Fatal(err)
		}
		for i := range 8 {
			f.mustFill(t, i, fmt.Sprintf("again-%d.png", i))
		}
		clustertest.Poll(t, "node 2 to notice", func() bool { return c.Do(http.MethodGet, 2, "/readyz", nil, nil).Status != http.StatusOK })
		c.Stop(2)
		disk.Remount(t)
		c.Start(2)
		c.WaitReady(c.IDs()...)
		if bad, end := c.Verify(t, 2, false); len(bad) > 0 || end.Images == 0 {
			t.Errorf("node 2 came back with %d copies, of which are bad: %+v", end.Images, bad)
		}
		f.expectAll(t)
	})
	for i := range 8 {
		f.mustFill(t, i, fmt.Sprintf("after-%d.png", i))
	}
	f.expectAll(t)
	if bad, end := c.Verify(t, 2, false); len(bad) > 0 || end.Images == 0 {
		t.Errorf("node 2 has %d copies, of which are bad: %+v", end.Images, bad)
	}
	for name := range f.bodies {
		if r := c.Do(http.MethodHead, 1, clustertest.Path("alice", name), nil, nil); strings.HasPrefix(name, "after") && strings.Contains(r.Header.Get("Imgcluster-Replicas"), "2") {
			return
		}
	}
	t.Error("node 2 is back, and is given no images")
}

// TestUnreadableCopy loses the blocks of one copy: the node that has it answers from another one, and
// replaces it.
func TestUnreadableCopy(t *testing.T) {
	c, disk := startWithImagesOn(t, 2)
	all := putMany(t, c, "unreadable", 6)
	var last stored
	var path string
	var at int64
	for _, s := range all {
		for _, p := range c.FilesOf(t, 2, s.id) {
			block, err := loopfs.FirstBlock(p)
			if err != nil {
				t.Fatal(err)
			}
			if block > at {
				last, path, at = s, p, block
			}
		}
	}
	if path == "" {
		t.Fatal("node 2 has no image")
	}
	if err := disk.LoseBlocks(path); err != nil {
		t.Fatal(err)
	}
	bad, _ := c.Verify(t, 2, false)
	if len(bad) != 1 || bad[0].Name != last.name || !strings.Contains(bad[0].Problem, "input/output error") {
		t.Fatalf("verify found %+v, want an I/O error of %s", bad, last.name)
	}
	expectMany(t, c, all, c.IDs()...)
	clustertest.Poll(t, "the unreadable copy to be replaced", func() bool {
		bad, _ := c.Verify(t, 2, false)
		return len(bad) == 0
	})
	expectMany(t, c, all, c.IDs()...)
	c.ExpectSettled(t)
}

// startWithImagesOn starts a cluster of which one node has its images on a disk of their own.
func startWithImagesOn(t *testing.T, id image.NodeID) (*clustertest.Cluster, *loopfs.Disk) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	c := clustertest.New(t, clustertest.Options{})
	c.Start(id)
	c.Stop(id) // its data directory is there now
	dir := filepath.Join(c.Config.DataDir(id), "images")
	// While the disk is away, what it was mounted on must not pass for it.
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "tmp"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	disk := loopfs.New(t, dir, imagesDiskBytes)
	t.Cleanup(func() { c.Stop(id) }) // before its disk goes
	t.Parallel()
	c.StartAll()
	return c, disk
}

// mustFill uploads an image in one way of several.
func (f *faults) mustFill(t *testing.T, i int, name string) []image.NodeID {
	t.Helper()
	body := clustertest.Image(uint64(len(f.bodies)), 100_000+i)
	replicas, err := f.fill(t, i, name, body)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return replicas
}
