package consensus

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgcluster/cluster/image"
)

// filesWith lists the tables of a node's catalog that have a text. A write-ahead log that is not in use any
// more is kept to be overwritten, and does not count.
func (c *toyCluster) filesWith(t *testing.T, i int, text string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(c.nodes[i].opts.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".sst") {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(text)) {
			found = append(found, path)
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return found
}

// TestCompact deletes a key, and has each node's disk forget it: no table of the catalog has it, and no log
// has the commands. The nodes go on, restart, and take in one that missed all of it.
func TestCompact(t *testing.T) {
	t.Parallel()
	const key = "key-that-goes"
	c := newCluster(t, 3, 2, nil)
	c.startAll()
	for range 30 {
		c.propose(0, 1, "set "+key+" value")
		c.propose(0, 1, "set stays value")
	}
	c.stop(2)
	if err := c.nodes[0].db.pebble.Flush(); err != nil {
		t.Fatal(err)
	}
	if len(c.filesWith(t, 0, key)) == 0 {
		t.Error("the key is in no table before it is deleted: this test finds nothing")
	}
	c.propose(0, 1, "del "+key)
	nudge := func(i int) func(context.Context, uint64) error {
		return func(_ context.Context, shard uint64) error {
			c.propose(i, shard, "set nudged yes")
			return nil
		}
	}
	for i := range 2 {
		until(t, "the deletion to be applied", func() bool { return !strings.Contains(c.state(i, 1), key) })
		for range 2 { // again where nothing has happened since
			must(t, c.nodes[i].Compact(t.Context(), nudge(i)))
		}
		until(t, "old tables to be gone", func() bool { return len(c.filesWith(t, i, key)) == 0 })
		reader, err := c.nodes[i].host.GetLogReader(1)
		must(t, err)
		first, last := reader.GetRange()
		entries, err := reader.Entries(first, last+1, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if bytes.Contains(e.Cmd, []byte(key)) {
				t.Errorf("node %d still has entry %d: %s", i+1, e.Index, e.Cmd)
			}
		}
		if first < 60 {
			t.Errorf("the log of node %d begins at entry %d", i+1, first)
		}
	}
	c.start(2) // it gets a snapshot: the log is gone
	c.expectSameEverywhere()
	c.expectRestored(2, 1)
	c.stop(0)
	c.start(0)
	c.propose(0, 1, "set stays again")
	c.expectSameEverywhere()
	c.stop(1)
	refused := image.Errorf(image.KindNoQuorum, "no majority")
	c.stop(2)
	err := c.nodes[0].Compact(t.Context(), func(context.Context, uint64) error { return refused })
	if err != nil && image.KindOf(err) != image.KindNoQuorum {
		t.Errorf("without a majority: %v", err)
	}
}
