// Package membership changes the Raft groups that this node leads until they match the layouts in the system
// shard, one replica at a time: Plan says what can be done next, and a Reconciler does it.
package membership

import (
	"slices"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// Op is what a Step does.
type Op string

const (
	// Remove takes a replica out of the group, for ever.
	Remove Op = "remove"
	// Add takes a replica into the group.
	Add Op = "add"
	// Settle puts into the system shard which part of a layout the group has reached.
	Settle Op = "settle"
)

// Step is one change of a shard's Raft group, or of the layout.
type Step struct {
	Op      Op
	Replica catalog.Replica // of Remove and Add
	Settle  catalog.Settle  // of Settle
}

// Peers is what is known of the nodes.
type Peers struct {
	Self image.NodeID
	Up   []image.NodeID // this node among them
	// Serving are the nodes that have the newest state of the shard.
	Serving []image.NodeID
	// Unused are the nodes that store nothing that the shard needs.
	Unused []image.NodeID
}

// Plan returns what can be done now to bring a shard's group to its layout, in order, and reports whether
// there is nothing left to do. Where it waits for a node, the rest comes with a later plan.
func Plan(shard uint64, group []catalog.Replica, l *catalog.Layout, p Peers) (steps []Step, done bool) {
	group = slices.Clone(group)
	remove := func(r catalog.Replica) {
		steps = append(steps, Step{Op: Remove, Replica: r})
		group = slices.DeleteFunc(group, func(x catalog.Replica) bool { return x == r })
	}
	for _, r := range slices.Clone(group) { // lost ones
		if !slices.Contains(l.All(), r) {
			remove(r)
		}
	}
	settle := catalog.Settle{Shard: shard, Version: l.Version}
	for _, r := range l.New { // at once: until then no other node can be rebuilt
		if slices.Contains(group, r) && slices.Contains(p.Serving, r.Node) {
			settle.Ready = append(settle.Ready, r)
		}
	}
	if settle.Ready != nil {
		return append(steps, Step{Op: Settle, Settle: settle}), false
	}
	absent := false
	for _, r := range slices.Concat(l.Nodes, l.Next) {
		if slices.Contains(group, r) {
			continue
		}
		// Not while its node is down: a group of four with one down loses its majority when another one fails.
		if r.Node != p.Self && !slices.Contains(p.Up, r.Node) {
			absent = true
			continue
		}
		for _, other := range slices.Clone(group) { // a node runs one replica of a shard
			if other.Node != r.Node {
				continue
			}
			if other.Node == p.Self {
				return steps, false // a leader does not remove itself: leadership moves to another node first
			}
			remove(other)
		}
		steps = append(steps, Step{Op: Add, Replica: r})
		group = append(group, r)
		if r.Node != p.Self && !slices.Contains(p.Serving, r.Node) {
			return steps, false // one at a time: the next one when this one has caught up
		}
	}
	if absent {
		return steps, false
	}
	if l.Next != nil {
		for _, r := range l.Next {
			if !slices.Contains(p.Serving, r.Node) {
				return steps, false
			}
		}
		settle.Moved = true
	} else {
		for _, r := range l.Old {
			// A replica that was lost is not in the group, but files of its node may still be needed.
			if r.Node == p.Self || !slices.Contains(p.Unused, r.Node) {
				return steps, false
			}
			if slices.Contains(group, r) {
				remove(r)
			}
			settle.Left = append(settle.Left, r)
		}
	}
	if settle.Moved || settle.Left != nil {
		return append(steps, Step{Op: Settle, Settle: settle}), false
	}
	return steps, len(l.New) == 0
}
