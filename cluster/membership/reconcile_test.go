package membership

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// fakes are a group, the system shard and the peers of a Reconciler on node 1.
type fakes struct {
	m       *catalog.Membership // that this node knows
	newest  *catalog.Membership
	group   []catalog.Replica
	leads   bool
	serving []image.NodeID
	changes int64

	did   []string
	reads int // of the group
}

func (f *fakes) LeaderOf(uint64) bool { return f.leads }

func (f *fakes) Group(context.Context, uint64) ([]catalog.Replica, error) {
	f.reads++
	return slices.Clone(f.group), nil
}

func (f *fakes) AddReplica(
	ctx context.Context, _ uint64, r catalog.Replica, address string, still func(context.Context) error,
) error {
	if err := still(ctx); err != nil {
		return err
	}
	f.did = append(f.did, fmt.Sprintf("add %d at %s", r.Node, address))
	f.group = append(f.group, r)
	return nil
}

func (f *fakes) RemoveReplica(
	ctx context.Context, _ uint64, r catalog.Replica, still func(context.Context) error,
) error {
	if err := still(ctx); err != nil {
		return err
	}
	f.did = append(f.did, fmt.Sprintf("remove %d", r.Node))
	f.group = slices.DeleteFunc(f.group, func(x catalog.Replica) bool { return x == r })
	return nil
}

func (f *fakes) Newest(context.Context) (*catalog.Membership, error) { return f.newest, nil }

// Settle changes the layout as the system shard does.
func (f *fakes) Settle(_ context.Context, s catalog.Settle) error {
	old := f.m.Shards[s.Shard]
	l := &catalog.Layout{Version: old.Version + 1, Nodes: old.Nodes}
	if s.Moved {
		l.Nodes = old.Next
		for _, r := range old.Nodes {
			if !slices.Contains(old.Next, r) {
				l.Old = append(l.Old, r)
			}
		}
	}
	f.did = append(f.did, fmt.Sprintf("settle moved %t, left %d", s.Moved, len(s.Left)))
	f.know(l)
	return nil
}

func (f *fakes) know(l *catalog.Layout) {
	f.m = &catalog.Membership{Version: l.Version, Shards: map[uint64]*catalog.Layout{shard: l}}
	for id := range image.NodeID(4) {
		f.m.Members = append(f.m.Members, catalog.Member{ID: id + 1, Raft: fmt.Sprint("raft", id+1)})
	}
	f.newest = f.m
}

func (f *fakes) reconciler() *Reconciler {
	return New(Options{
		Self: 1, Raft: f, System: f, Known: func() *catalog.Membership { return f.m },
		Up:     func() []image.NodeID { return []image.NodeID{1, 2, 3, 4} },
		Serves: func(node image.NodeID, _ uint64) bool { return slices.Contains(f.serving, node) },
		Unused: func(context.Context, uint64, *catalog.Layout, image.NodeID) (bool, error) {
			return true, nil
		},
		LeaderChanges: func() int64 { return f.changes }, Logger: zap.NewNop(),
	})
}

// TestMove takes a shard from node 3 to node 4, to its end, and then lets it be.
func TestMove(t *testing.T) {
	f := &fakes{group: on(1, 2, 3), leads: true, serving: []image.NodeID{1, 2, 3}}
	f.know(&catalog.Layout{Version: 1, Nodes: on(1, 2, 3), Next: on(1, 2, 4)})
	r := f.reconciler()
	r.Reconcile(t.Context())
	r.Reconcile(t.Context()) // node 4 has yet to catch up
	f.serving = append(f.serving, 4)
	for range 3 {
		r.Reconcile(t.Context())
	}
	want := []string{"add 4 at raft4", "settle moved true, left 0", "remove 3", "settle moved false, left 1"}
	if !reflect.DeepEqual(f.did, want) || !slices.Equal(f.group, on(1, 2, 4)) {
		t.Errorf("did %q, group %v; want %q", f.did, f.group, want)
	}
	before := f.reads
	r.Reconcile(t.Context())
	if f.reads != before {
		t.Error("a group that is as it should be was read again")
	}
	f.changes++
	r.Reconcile(t.Context())
	if f.reads == before {
		t.Error("a group was not read again after a change of leaders")
	}
}

// TestStale: nothing is changed by a layout that is no longer the newest, or never was one, nor where another
// node leads.
func TestStale(t *testing.T) {
	f := &fakes{group: on(1, 2, 3), leads: true, serving: []image.NodeID{1, 2, 3}}
	f.know(&catalog.Layout{Version: 1, Nodes: on(1, 2, 3), Next: on(1, 2, 4)})
	f.newest = &catalog.Membership{
		Version: 2, Shards: map[uint64]*catalog.Layout{shard: {Version: 2, Nodes: on(1, 2, 3)}},
	}
	r := f.reconciler()
	r.Reconcile(t.Context())
	f.newest.Shards[shard].Version = 1 // of the same version
	r.Reconcile(t.Context())
	f.newest = f.m
	f.leads = false
	r.Reconcile(t.Context())
	if f.did != nil {
		t.Errorf("did %q", f.did)
	}
}
