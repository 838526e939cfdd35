package consensus

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgcluster/cluster/image"
)

// TestAtRest looks for what was proposed in all files of three nodes, one of which got it by a snapshot: the
// commands are in no file, the values of the state neither, and its keys are nowhere but in the catalog.
func TestAtRest(t *testing.T) {
	t.Parallel() // most of it is waiting
	const key, value = "key-that-is-looked-for", "value-that-is-looked-for"
	c := newCluster(t, 3, 1, func(o *Options) { o.SnapshotEntries, o.CompactionOverhead = 20, 5 })
	c.startAll()
	c.propose(0, 1, "set first x")
	c.expectSameEverywhere()
	c.stop(2)
	c.propose(0, 1, "set "+key+" "+value)
	for range 90 {
		c.propose(0, 1, "set other "+strings.Repeat("y", 10))
	}
	c.start(2)
	c.expectSameEverywhere()
	c.expectRestored(2, 1)
	if got := c.read(2, 1, key); got != value {
		t.Fatalf("node 3 reads %q", got)
	}
	c.propose(1, 1, "set "+key+" "+value+" again")
	c.expectSameEverywhere()
	c.stopAll()
	found := map[string]int{} // folders of files with the key
	for _, n := range c.nodes {
		err := filepath.WalkDir(n.opts.Dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			if bytes.Contains(b, []byte(value)) {
				t.Errorf("%s has the value in clear", path)
			}
			if bytes.Contains(b, []byte(key)) {
				found[filepath.Base(filepath.Dir(path))]++
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(found) != 1 || found["catalog"] < len(c.nodes) {
		t.Errorf("the key is in files of %v, not of the catalog of each node alone", found)
	}
}

// TestAnotherDisksSealer: a node whose key for its data directory is another one's does not start.
func TestAnotherDisksSealer(t *testing.T) {
	c, o := oneNode(t)
	o.Disk = sealerOf("another disk")
	n, err := startNode(o, c.nodes[0].shards)
	if image.HintOf(err) == "" || err == nil {
		t.Errorf("it starts, %v", err)
	}
	if n != nil {
		n.Close()
	}
}
