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
	"testing"

	"golang.org/x/sys/unix"

	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/clustertest/loopfs"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

const imagesDiskBytes = 64 << 20

// TestDiskFails has the disk fail that one node keeps its images on: an ext4 whose every operation returns
// EIO, while Raft's log on another disk works. Nothing is stored there until the disk works again and all
// that is on it was read.
func TestDiskFails(t *testing.T) {
	c, disk := startWithImagesOn(t, 2)
	f := &faults{c: c, cl: c.Client(t, client.Broadcast), bodies: map[string][]byte{}}
	for i := range 8 {
		f.mustUpload(t, i, fmt.Sprintf("before-%d.png", i))
	}
	files := c.Files(t, 2, ".img")
	if len(files) == 0 {
		t.Fatal("node 2 has no image")
	}
	clustertest.FlipByte(t, files[0], 5000) // nobody has read it since
	unix.Sync()
	if err := disk.Cut(); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		if replicas := f.mustUpload(t, i, fmt.Sprintf("without-%d.png", i)); slices.Contains(replicas, 2) {
			t.Errorf("node 2 acknowledged upload %d on a disk that does not work", i)
		}
	}
	ready := c.Do(http.MethodGet, 2, "/readyz", nil, nil)
	clustertest.ExpectProblem(t, ready, image.KindAborted)
	if !strings.Contains(ready.Problem.Detail, unix.EIO.Error()) {
		t.Errorf("/readyz of a node whose disk failed: %q", ready.Body)
	}
	clustertest.Poll(t, "node 1 to report the failed disk", func() bool {
		s := c.Status(1)
		return len(s.Nodes) == 3 && s.Nodes[1].State == wire.NodeUp && !s.Nodes[1].Ready &&
			strings.Contains(s.Nodes[1].Problem, unix.EIO.Error())
	})
	if metric(t, c, 2, "imgcluster_disk_failed") != 1 {
		t.Error("the disk has not failed by the metrics")
	}
	for name, body := range f.bodies {
		c.ExpectImage(t, "alice", name, body, c.IDs()...)
	}
	disk.Remount(t)
	c.WaitReady(c.IDs()...)
	if bad, _ := c.Verify(t, 2, false); len(bad) > 0 {
		t.Errorf("node 2 is ready again with the bad copies %+v", bad)
	}
	f.expectAll(t)
	t.Run("Restarted", func(t *testing.T) { // the next process does not trust what is there either
		clustertest.FlipByte(t, c.Files(t, 2, ".img")[0], 5000)
		unix.Sync()
		if err := disk.Cut(); err != nil {
			t.Fatal(err)
		}
		for i := range 8 {
			f.mustUpload(t, i, fmt.Sprintf("again-%d.png", i))
		}
		clustertest.Poll(t, "node 2 to notice", func() bool {
			return c.Do(http.MethodGet, 2, "/readyz", nil, nil).Status != http.StatusOK
		})
		c.Stop(2)
		disk.Remount(t)
		c.Start(2)
		c.WaitReady(c.IDs()...)
		if bad, end := c.Verify(t, 2, false); len(bad) > 0 || end.Images == 0 {
			t.Errorf("node 2 is ready again with %d copies, of which are bad: %+v", end.Images, bad)
		}
		f.expectAll(t)
	})
	given := false
	for i := range 8 {
		replicas := f.mustUpload(t, i, fmt.Sprintf("after-%d.png", i))
		given = given || slices.Contains(replicas, 2)
	}
	f.expectAll(t)
	if bad, end := c.Verify(t, 2, false); len(bad) > 0 || end.Images == 0 {
		t.Errorf("node 2 has %d copies, of which are bad: %+v", end.Images, bad)
	}
	if !given {
		t.Error("node 2 has recovered, and is given no images")
	}
}

// TestUnreadableCopy loses the blocks of one copy: the node that has it answers from another one, and
// replaces it.
func TestUnreadableCopy(t *testing.T) {
	c, disk := startWithImagesOn(t, 2)
	all := putImages(t, c, "unreadable", 6)
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
				last = s
				path = p
				at = block
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
	if len(bad) != 1 || bad[0].Name != last.name || !strings.Contains(bad[0].Problem, unix.EIO.Error()) {
		t.Fatalf("verify found %+v, want an I/O error of %s", bad, last.name)
	}
	expectImages(t, c, all, c.IDs()...)
	clustertest.Poll(t, "the unreadable copy to be replaced", func() bool {
		bad, _ := c.Verify(t, 2, false)
		return len(bad) == 0
	})
	expectImages(t, c, all, c.IDs()...)
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
	// While the disk is not mounted, the node must not take the folder below it for the disk.
	err := errors.Join(
		os.RemoveAll(dir), os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "tmp"), nil, 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	disk := loopfs.New(t, dir, imagesDiskBytes)
	t.Cleanup(func() { c.Stop(id) }) // before its disk is unmounted
	t.Parallel()
	c.StartAll()
	return c, disk
}

// mustUpload is upload of an image that must be acknowledged.
func (f *faults) mustUpload(t *testing.T, i int, name string) []image.NodeID {
	t.Helper()
	body := clustertest.Image(uint64(len(f.bodies)), 100_000+i)
	replicas, err := f.upload(t, i, name, body)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return replicas
}
