package repair

import (
	"fmt"
	"slices"
	"testing"

	"imgcluster/cluster/image"
)

// TestMissingIsMadeOnce asks all nodes of clusters in any state: as many of them as copies are missing
// take one on, each in the place of another lost one, and none that is down, draining or has one.
func TestMissingIsMadeOnce(t *testing.T) {
	members := []image.NodeID{1, 2, 3, 4, 5}
	cases := 0
	for wanted := 1; wanted <= 3; wanted++ {
		for has := 1; has < 1<<5; has++ {
			for down := range 1 << 5 {
				var copies []image.Copy
				var gone, live []image.NodeID
				for i, n := range members {
					if has>>i&1 == 1 {
						copies = append(copies, image.Copy{Node: n, Epoch: uint32(i + 1)})
					}
					if down>>i&1 == 1 {
						gone = append(gone, n)
					} else {
						live = append(live, n)
					}
				}
				if len(copies) > wanted {
					continue
				}
				cases++
				rec := &image.Record{User: "alice", Name: fmt.Sprint(cases), Copies: copies, Wanted: wanted}
				var made int
				var dropped []image.Copy
				for _, n := range members {
					drop, mine := missing(rec, n, members, live, gone)
					if !mine {
						continue
					}
					made++
					dropped = append(dropped, drop...)
					if slices.Contains(gone, n) || slices.Contains(rec.Replicas(), n) {
						t.Fatalf("node %d, of %v live, is to make a copy beside %v", n, live, copies)
					}
				}
				good, free := 0, 0
				for _, n := range members {
					switch has, down := slices.Contains(rec.Replicas(), n), slices.Contains(gone, n); {
					case has && !down:
						good++
					case !has && !down:
						free++
					}
				}
				want := min(wanted-good, free)
				if made != want {
					t.Fatalf("%d copies are made, want %d: copies %v of %d, live %v", made, want, copies, wanted, live)
				}
				if now := len(copies) + made - len(dropped); now > wanted {
					t.Fatalf("%d copies of %d", now, wanted)
				}
				slices.SortFunc(dropped, func(a, b image.Copy) int { return int(a.Node) - int(b.Node) })
				if len(slices.Compact(slices.Clone(dropped))) != len(dropped) || slices.ContainsFunc(dropped, func(c image.Copy) bool { return !slices.Contains(gone, c.Node) }) {
					t.Fatalf("dropped %v, gone are %v", dropped, gone)
				}
			}
		}
	}
	if cases < 500 {
		t.Fatal("hardly a case")
	}
}
