package repair

import (
	"fmt"
	"iter"
	"slices"
	"testing"

	"imgcluster/cluster/image"
)

var fiveNodes = []image.NodeID{1, 2, 3, 4, 5}

// TestMissingIsMadeOnce asks all nodes of clusters in any state: as many of them as copies are missing make
// one, each in place of another lost one, and none that is down, draining or has one.
func TestMissingIsMadeOnce(t *testing.T) {
	cases := 0
	for wanted := 1; wanted <= 3; wanted++ {
		for has := range subsets(fiveNodes) {
			if len(has) == 0 || len(has) > wanted {
				continue
			}
			for down := range subsets(fiveNodes) {
				cases++
				rec := &image.Record{User: "alice", Name: fmt.Sprint(cases), Wanted: wanted}
				for _, n := range has {
					rec.Copies = append(rec.Copies, image.Copy{Node: n, Attempt: image.NewAttempt()})
				}
				expectMadeOnce(t, rec, down)
			}
		}
	}
	if cases < 500 {
		t.Fatalf("only %d cases", cases)
	}
}

// subsets yields every subset of nodes.
func subsets(nodes []image.NodeID) iter.Seq[[]image.NodeID] {
	return func(yield func([]image.NodeID) bool) {
		for bits := range 1 << len(nodes) {
			var subset []image.NodeID
			for i, n := range nodes {
				if bits>>i&1 == 1 {
					subset = append(subset, n)
				}
			}
			if !yield(subset) {
				return
			}
		}
	}
}

// expectMadeOnce expects that the nodes that are not down make exactly the missing copies of a record.
func expectMadeOnce(t *testing.T, rec *image.Record, down []image.NodeID) {
	t.Helper()
	live := slices.DeleteFunc(slices.Clone(fiveNodes), func(n image.NodeID) bool {
		return slices.Contains(down, n)
	})
	made := 0
	var dropped []image.Copy
	for _, n := range fiveNodes {
		drop, mine := toMake(rec, n, fiveNodes, live, down)
		if !mine {
			continue
		}
		made++
		dropped = append(dropped, drop...)
		if slices.Contains(down, n) || slices.Contains(rec.Replicas(), n) {
			t.Fatalf("node %d, of %v live, is to make a copy beside %v", n, live, rec.Copies)
		}
	}
	good := 0 // copies on live nodes
	for _, n := range rec.Replicas() {
		if slices.Contains(live, n) {
			good++
		}
	}
	if want := min(rec.Wanted-good, len(live)-good); made != want {
		t.Fatalf("%d copies are made, want %d: copies %v of %d, live %v",
			made, want, rec.Copies, rec.Wanted, live)
	}
	if now := len(rec.Copies) + made - len(dropped); now > rec.Wanted {
		t.Fatalf("%d copies of %d", now, rec.Wanted)
	}
	seen := map[image.Copy]bool{}
	for _, c := range dropped {
		if seen[c] || !slices.Contains(down, c.Node) {
			t.Fatalf("dropped %v, down are %v", dropped, down)
		}
		seen[c] = true
	}
}
