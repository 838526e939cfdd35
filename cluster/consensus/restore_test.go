package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"

	"imgcluster/cluster/catalog"
)

// TestRestore loses two of three nodes with their disks. What the third one writes without a majority is all
// that it had; restored from that, it is alone in its groups, takes in new replicas of the lost nodes, and
// they have everything.
func TestRestore(t *testing.T) {
	t.Parallel() // most of it is waiting
	c := newCluster(t, 3, 2, func(o *Options) { o.SnapshotEntries, o.CompactionOverhead = 20, 5 })
	c.startAll()
	for i := range 50 {
		c.propose(i%3, 1, fmt.Sprintf("set k%d %d", i, i))
	}
	c.expectSameEverywhere() // shard 2 is empty
	before := c.state(0, 1)
	c.stop(1)
	c.stop(2)

	n := c.nodes[0]
	states := map[uint64]*bytes.Buffer{1: {}, 2: {}}
	for shard, b := range states {
		must(t, n.WriteShard(shard, b))
	}
	if err := n.WriteShard(9, &bytes.Buffer{}); err == nil {
		t.Error("a shard that is not there was written")
	}
	c.stop(0)
	for _, n := range c.nodes {
		must(t, os.RemoveAll(n.opts.Dir))
	}
	const number = 5
	n.opts.DeploymentID = 8
	fill := func(r *Restoration) (uint32, error) {
		for shard, b := range states {
			if err := r.Put(shard, bytes.NewReader(b.Bytes())); err != nil {
				return 0, err
			}
		}
		return number, r.View(1, func(r catalog.Reader) error {
			if v, err := r.Get([]byte("k7")); string(v) != "7" {
				return fmt.Errorf("k7 is %q, %v", v, err)
			}
			return nil
		})
	}
	must(t, Restore(n.opts, fill))

	n.shards = []Shard{joining(1, 1, number), joining(2, 1, number)}
	for range 3 { // and after a restart; then there are snapshots and the log is shorter
		c.start(0)
		until(t, "all shards have a leader", n.Ready)
		if after := c.state(0, 1); after != before {
			t.Fatal("the state is another one")
		}
		for i := range 50 {
			c.propose(0, 2, fmt.Sprintf("set new%d %d", i, i))
		}
		c.stop(0)
	}
	c.start(0)
	until(t, "all shards have a leader", n.Ready)
	for i := 1; i < 3; i++ {
		other := c.nodes[i]
		other.opts.DeploymentID = 8
		other.shards = nil
		for shard := uint64(1); shard <= 2; shard++ {
			r := joining(shard, other.opts.NodeID, number+1)
			other.shards = append(other.shards, r)
			must(t, n.AddReplica(t.Context(), shard, r.Replica, other.opts.RaftAddress, always))
		}
		c.start(i)
		for shard := uint64(1); shard <= 2; shard++ {
			until(t, "the node has caught up", func() bool { return other.CaughtUp(t.Context(), shard) })
		}
	}
	c.expectSameEverywhere()
	c.propose(2, 1, "set after all")
	c.expectSameEverywhere()
	if got := c.read(1, 1, "k49") + c.read(1, 1, "after") + c.read(2, 2, "new49"); got != "49all49" {
		t.Errorf("the others read %q", got)
	}
}

// TestRestoreRefuses what is no state.
func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	o := testOptions(1, freeAddresses(t, 1)[0], t.TempDir())
	defer o.Port.Close()
	err := Restore(o, func(r *Restoration) (uint32, error) {
		return 1, r.Put(1, bytes.NewReader([]byte("no snapshot")))
	})
	if !errors.Is(err, errSnapshot) {
		t.Errorf("%v", err)
	}
}
