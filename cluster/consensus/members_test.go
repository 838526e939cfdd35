package consensus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/lni/dragonboat/v4"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// joining returns the shard as a replica starts it that was added after the bootstrap.
func joining(shard uint64, node image.NodeID, number uint32) Shard {
	return Shard{ID: shard, Replica: catalog.Replica{Node: node, Number: number}, Apply: toyApply}
}

// always is the condition of a change of a group that is always right.
func always(context.Context) error { return nil }

// TestChangesOfTheLate has a node that is behind change a group: it finds out, and the change of the node
// that was up to date stays.
func TestChangesOfTheLate(t *testing.T) {
	t.Parallel() // most of it is waiting
	c := newCluster(t, 3, 1, nil)
	c.startAll()
	late := c.nodes[0]
	knows := c.nodes[1]
	lost := catalog.Replica{Node: 3}
	fresh := catalog.Replica{Node: 3, Number: 1}
	address := c.nodes[2].opts.RaftAddress
	old := image.Errorf(image.KindStale, "an old layout")
	refuses := func(context.Context) error { return old }
	if err := late.RemoveReplica(t.Context(), 1, lost, refuses); !errors.Is(err, old) {
		t.Fatalf("a change that is not right any more: %v", err)
	}
	asked := 0
	err := late.AddReplica(t.Context(), 1, catalog.Replica{Node: 3, Number: 9}, address,
		func(context.Context) error {
			if asked++; asked > 1 {
				return old
			}
			must(t, knows.RemoveReplica(t.Context(), 1, lost, always)) // in between
			must(t, knows.AddReplica(t.Context(), 1, fresh, address, always))
			return nil
		})
	if !errors.Is(err, old) || asked != 2 {
		t.Fatalf("a change after another one: %v, asked %d times", err, asked)
	}
	if err := knows.AddReplica(t.Context(), 1, lost, address, always); image.KindOf(err) != image.KindStale {
		t.Errorf("a removed replica starts again: %v", err)
	}
	group, err := knows.Group(t.Context(), 1)
	must(t, err)
	if len(group) != 3 || !slices.Contains(group, fresh) {
		t.Errorf("the group is %v", group)
	}
}

// TestReplaceAReplica removes the data of each node in turn and rebuilds it from its peers, as new replicas.
func TestReplaceAReplica(t *testing.T) {
	t.Parallel() // most of it is waiting
	c := newCluster(t, 3, 3, nil)
	c.startAll()
	for lost := range c.nodes {
		number := uint32(lost + 1)
		key := fmt.Sprintf("before%d", lost)
		for shard := uint64(1); shard <= 3; shard++ {
			c.propose(lost, shard, "set "+key+" kept")
		}
		n := c.nodes[lost]
		id := n.opts.NodeID
		c.stop(lost)
		must(t, os.RemoveAll(n.opts.Dir))
		n.shards = nil
		for shard := uint64(1); shard <= 3; shard++ {
			n.shards = append(n.shards, joining(shard, id, number))
			other := c.nodes[(lost+1)%3]
			group, err := other.Group(t.Context(), shard)
			must(t, err)
			for _, r := range group {
				if r.Node == id {
					must(t, other.RemoveReplica(t.Context(), shard, r, always))
					must(t, other.RemoveReplica(t.Context(), shard, r, always)) // again
				}
			}
			must(t, other.AddReplica(t.Context(), shard, catalog.Replica{Node: id, Number: number},
				n.opts.RaftAddress, always))
			must(t, other.AddReplica(t.Context(), shard, catalog.Replica{Node: id, Number: number},
				n.opts.RaftAddress, always))
		}
		c.start(lost)
		for shard := uint64(1); shard <= 3; shard++ {
			until(t, "the node has caught up", func() bool { return n.CaughtUp(t.Context(), shard) })
			if got := c.read(lost, shard, key); got != "kept" {
				t.Errorf("node %d reads %q of shard %d after it lost its disk", id, got, shard)
			}
		}
		c.stop(lost) // what it is now it is after a restart
		c.start(lost)
		until(t, "all shards have a leader again", n.Ready)
	}
	c.expectSameEverywhere()
}

// TestInterruptedRemoval stops a node between the two halves of the removal of a shard: when its Raft data is
// removed and the catalog still has the replica. The next start completes it, and a new replica may come.
func TestInterruptedRemoval(t *testing.T) {
	t.Parallel() // most of it is waiting
	c := newCluster(t, 3, 2, nil)
	c.startAll()
	c.propose(0, 2, "set a b")
	one := c.nodes[0]
	three := c.nodes[2]
	must(t, one.RemoveReplica(t.Context(), 2, catalog.Replica{Node: 3}, always))
	err := three.host.StopReplica(2, 3)
	if err != nil && !errors.Is(err, dragonboat.ErrShardNotFound) {
		t.Fatal(err)
	}
	until(t, "the Raft data is removed", func() bool {
		err = three.removeData(2, 3)
		return !errors.Is(err, dragonboat.ErrShardNotStopped)
	})
	must(t, err)
	c.stop(2)
	for range 2 { // and once more, with a layout that still has the replica
		c.start(2)
		stored, err := three.Stored()
		must(t, err)
		if len(stored) != 1 || !slices.Equal(three.Hosted(), []uint64{1}) {
			t.Fatalf("node 3 hosts %v and has stored %v", three.Hosted(), stored)
		}
		c.stop(2)
	}
	three.shards = three.shards[:1]
	c.start(2)
	must(t, three.StartShard(joining(2, 3, 1)))
	must(t, one.AddReplica(t.Context(), 2, catalog.Replica{Node: 3, Number: 1}, three.opts.RaftAddress, always))
	until(t, "node 3 is back", func() bool { return three.CaughtUp(t.Context(), 2) })
	if got := c.read(2, 2, "a"); got != "b" {
		t.Errorf("node 3 reads %q after it is back", got)
	}
}

// TestMoveAShard moves a shard from node 3 to node 4, and back as a new replica.
func TestMoveAShard(t *testing.T) {
	t.Parallel() // most of it is waiting
	c := newCluster(t, 4, 2, nil)
	for i, n := range c.nodes { // shard 1 is on all, shard 2 on the first three
		for s := range n.shards {
			delete(n.shards[s].Members, 4)
		}
		if i == 3 {
			n.shards = nil
		}
	}
	c.startAll()
	c.propose(0, 2, "set a b")
	one := c.nodes[0]
	four := c.nodes[3]
	must(t, four.StartShard(joining(2, 4, 1)))
	must(t, one.AddReplica(t.Context(), 2, catalog.Replica{Node: 4, Number: 1},
		four.opts.RaftAddress, always))
	until(t, "node 4 has caught up", func() bool { return four.CaughtUp(t.Context(), 2) })
	must(t, one.RemoveReplica(t.Context(), 2, catalog.Replica{Node: 3}, always))
	must(t, c.nodes[2].DropShard(t.Context(), 2))
	err := c.nodes[2].View(2, func(catalog.Reader) error { return nil })
	if image.KindOf(err) != image.KindNoQuorum {
		t.Errorf("a dropped shard answers %v", err)
	}
	if got := c.read(3, 2, "a"); got != "b" || !slices.Equal(c.nodes[2].Hosted(), []uint64{1}) {
		t.Errorf("node 4 reads %q, node 3 hosts %v", got, c.nodes[2].Hosted())
	}
	c.propose(3, 2, "set a c")
	must(t, c.nodes[2].StartShard(joining(2, 3, 2)))
	must(t, one.AddReplica(t.Context(), 2, catalog.Replica{Node: 3, Number: 2},
		c.nodes[2].opts.RaftAddress, always))
	until(t, "node 3 is back", func() bool { return c.nodes[2].CaughtUp(t.Context(), 2) })
	if got := c.read(2, 2, "a"); got != "c" {
		t.Errorf("node 3 reads %q after it is back", got)
	}
	if got, want := c.state(2, 2), c.state(3, 2); got != want {
		t.Error("nodes 3 and 4 have other states")
	}
}
