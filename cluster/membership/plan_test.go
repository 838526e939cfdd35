package membership

import (
	"reflect"
	"testing"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

const shard = 3

// on are the first replicas of some nodes.
func on(nodes ...image.NodeID) (list []catalog.Replica) {
	for _, n := range nodes {
		list = append(list, catalog.Replica{Node: n})
	}
	return list
}

func add(r catalog.Replica) Step    { return Step{Op: Add, Replica: r} }
func remove(r catalog.Replica) Step { return Step{Op: Remove, Replica: r} }

func ready(r ...catalog.Replica) Step {
	return Step{Op: Settle, Settle: catalog.Settle{Shard: shard, Version: 7, Ready: r}}
}

func moved() Step {
	return Step{Op: Settle, Settle: catalog.Settle{Shard: shard, Version: 7, Moved: true}}
}

func left(r ...catalog.Replica) Step {
	return Step{Op: Settle, Settle: catalog.Settle{Shard: shard, Version: 7, Left: r}}
}

// TestPlan: what is done next, of a shard on nodes 1, 2 and 3 that node 1 leads.
func TestPlan(t *testing.T) {
	three := on(1, 2, 3)
	all := []image.NodeID{1, 2, 3, 4, 5}
	second := catalog.Replica{Node: 3, Number: 9}
	for name, c := range map[string]struct {
		group               []catalog.Replica
		layout              catalog.Layout
		up, serving, unused []image.NodeID
		want                []Step
		done                bool
	}{
		"as it should be": {three, catalog.Layout{Nodes: three}, all, all, nil, nil, true},
		"as it should be, one down": {
			three, catalog.Layout{Nodes: three}, []image.NodeID{1, 2}, []image.NodeID{1, 2}, nil, nil, true,
		},
		"moves to 4: join": {
			three,
			catalog.Layout{Nodes: three, Next: on(1, 2, 4)},
			all,
			[]image.NodeID{1, 2, 3},
			nil,
			[]Step{add(on(4)[0])},
			false,
		},
		"moves to 4, which is down": {
			three,
			catalog.Layout{Nodes: three, Next: on(1, 2, 4)},
			[]image.NodeID{1, 2, 3},
			[]image.NodeID{1, 2, 3},
			nil, nil, false,
		},
		"moves to 4, which catches up": {
			on(1, 2, 3, 4),
			catalog.Layout{Nodes: three, Next: on(1, 2, 4)},
			all,
			[]image.NodeID{1, 2, 3},
			nil, nil, false,
		},
		"moves to 4, which serves": {
			on(1, 2, 3, 4), catalog.Layout{Nodes: three, Next: on(1, 2, 4)}, all, all, nil, []Step{moved()}, false,
		},
		"moves to 4 and 5: one at a time": {
			three,
			catalog.Layout{Nodes: three, Next: on(1, 4, 5)},
			all,
			[]image.NodeID{1, 2, 3},
			nil,
			[]Step{add(on(4)[0])},
			false,
		},
		"moves to 4, down, and 5: the one that is up": {
			three,
			catalog.Layout{Nodes: three, Next: on(1, 4, 5)},
			[]image.NodeID{1, 2, 3, 5},
			all, nil,
			[]Step{add(on(5)[0])},
			false,
		},
		"3 drains, and has images": {
			on(1, 2, 3, 4), catalog.Layout{Nodes: on(1, 2, 4), Old: on(3)}, all, all, nil, nil, false,
		},
		"3 drains, and has none left": {
			on(1, 2, 3, 4),
			catalog.Layout{Nodes: on(1, 2, 4), Old: on(3)},
			all, all,
			[]image.NodeID{3},
			[]Step{remove(on(3)[0]), left(on(3)...)},
			false,
		},
		"3 and 2 leave, 2 has images": {
			on(1, 2, 3, 4, 5),
			catalog.Layout{Nodes: on(1, 4, 5), Old: on(3, 2)},
			all, all,
			[]image.NodeID{3},
			[]Step{remove(on(3)[0])},
			false,
		},
		"3 left, the system shard has not settled it": {
			on(1, 2, 4),
			catalog.Layout{Nodes: on(1, 2, 4), Old: on(3)},
			all, all,
			[]image.NodeID{3},
			[]Step{left(on(3)...)},
			false,
		},
		"this node leaves: another one leads first": {
			on(1, 2, 3, 4), catalog.Layout{Nodes: on(2, 3, 4), Old: on(1)}, all, all, []image.NodeID{1}, nil, false,
		},
		"3 was replaced": {
			three,
			catalog.Layout{Nodes: append(on(1, 2), second)},
			all,
			[]image.NodeID{1, 2},
			nil,
			[]Step{remove(on(3)[0]), add(second)},
			false,
		},
		"3 was replaced, and is not back yet": {
			three,
			catalog.Layout{Nodes: append(on(1, 2), second)},
			[]image.NodeID{1, 2},
			[]image.NodeID{1, 2},
			nil,
			[]Step{remove(on(3)[0])},
			false,
		},
		"3 was replaced, and has the data again": {
			append(on(1, 2), second),
			catalog.Layout{Nodes: append(on(1, 2), second), New: []catalog.Replica{second}},
			all, all, nil,
			[]Step{ready(second)},
			false,
		},
		"3 was replaced, and catches up": {
			append(on(1, 2), second),
			catalog.Layout{Nodes: append(on(1, 2), second), New: []catalog.Replica{second}},
			all,
			[]image.NodeID{1, 2},
			nil, nil, false,
		},
		"this node is added again, and leads as its old replica: another one leads first": {
			on(2, 3, 4, 1),
			catalog.Layout{
				Nodes: on(2, 3, 4), Next: []catalog.Replica{{Node: 1, Number: 9}, {Node: 2}, {Node: 3}}, Old: on(1),
			},
			all, all, nil, nil, false,
		},
		"3 is added again while its old replica is removed": {
			on(1, 2, 3, 4),
			catalog.Layout{Nodes: on(1, 2, 4), Next: append(on(1, 2), second), Old: on(3)},
			all,
			[]image.NodeID{1, 2, 4},
			nil,
			[]Step{remove(on(3)[0]), add(second)},
			false,
		},
		"a replica that the layout does not know": {
			on(1, 2, 3, 5), catalog.Layout{Nodes: three}, all, all, nil, []Step{remove(on(5)[0])}, true,
		},
	} {
		c.layout.Version = 7
		peers := Peers{Self: 1, Up: c.up, Serving: c.serving, Unused: c.unused}
		steps, done := Plan(shard, c.group, &c.layout, peers)
		if !reflect.DeepEqual(steps, c.want) || done != c.done {
			t.Errorf("%s: %+v, done %t; want %+v, %t", name, steps, done, c.want, c.done)
		}
	}
}
