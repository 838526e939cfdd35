package placement

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"imgcluster/cluster/image"
)

// expectLayout expects a layout that keeps what Layout promises.
func expectLayout(t interface {
	Helper()
	Fatalf(string, ...any)
}, rows [][]image.NodeID, nodes []image.NodeID,
) {
	t.Helper()
	held := map[image.NodeID]int{}
	leads := map[image.NodeID]int{slices.Min(nodes): 1}
	for i, row := range rows {
		sorted := slices.Clone(row)
		slices.Sort(sorted)
		if len(row) != min(ShardNodes, len(nodes)) || len(slices.Compact(sorted)) != len(row) {
			t.Fatalf("shard %d is on %v", i, row)
		}
		for _, n := range row {
			if !slices.Contains(nodes, n) {
				t.Fatalf("shard %d is on node %d, which is not in %v", i, n, nodes)
			}
			held[n]++
		}
		leads[row[0]]++
	}
	spread := func(m map[image.NodeID]int) int {
		least := m[nodes[0]]
		most := m[nodes[0]]
		for _, n := range nodes {
			least = min(least, m[n])
			most = max(most, m[n])
		}
		return most - least
	}
	if spread(held) > 1 {
		t.Fatalf("shards on nodes: %v in %v", held, rows)
	}
	most := 0
	for _, n := range leads {
		most = max(most, n)
	}
	if most > 1 && leadable(rows, slices.Min(nodes), most-1) {
		t.Fatalf("a node is to lead %d shards, fewer would do: %v in %v", most, leads, rows)
	}
}

// leadable reports whether every row can have a leader among its nodes so that no node leads more than limit.
// The first node leads one already. By augmenting paths (Kuhn, 1955), row by row.
func leadable(rows [][]image.NodeID, first image.NodeID, limit int) bool {
	led := map[image.NodeID][]int{first: {-1}}
	var give func(row int, seen map[image.NodeID]bool) bool
	give = func(row int, seen map[image.NodeID]bool) bool {
		for _, n := range rows[row] {
			if seen[n] {
				continue
			}
			seen[n] = true
			if len(led[n]) < limit {
				led[n] = append(led[n], row)
				return true
			}
			for i, other := range led[n] {
				if other >= 0 && give(other, seen) {
					led[n][i] = row
					return true
				}
			}
		}
		return false
	}
	for row := range rows {
		if !give(row, map[image.NodeID]bool{}) {
			return false
		}
	}
	return true
}

func TestLayoutOfANewCluster(t *testing.T) {
	for nodes := 1; nodes <= 9; nodes++ {
		for _, shards := range []int{1, 2, 3, 12, 13, 64, 256} {
			rows := Layout(make([][]image.NodeID, shards), nodeIDs(nodes))
			expectLayout(t, rows, nodeIDs(nodes))
		}
	}
}

// TestLayoutMovesLittle grows a cluster from 3 to 5 nodes: only the shares of the two new nodes move.
func TestLayoutMovesLittle(t *testing.T) {
	before := Layout(make([][]image.NodeID, 12), nodeIDs(3))
	after := Layout(before, nodeIDs(5))
	expectLayout(t, after, nodeIDs(5))
	moved := 0
	for i := range after {
		moved += added(after[i], before[i])
	}
	if moved != 14 { // 36 places on 5 nodes: two new ones get 7 each
		t.Errorf("%d places moved, 14 are needed: %v", moved, after)
	}
	if again := Layout(after, nodeIDs(5)); !slices.EqualFunc(again, after, slices.Equal) {
		t.Errorf("without a change of nodes the layout changed from %v to %v", after, again)
	}
}

// TestLayoutAfterAnyChange changes the nodes of a layout at random.
func TestLayoutAfterAnyChange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := make([][]image.NodeID, rapid.IntRange(1, 40).Draw(t, "shards"))
		for range rapid.IntRange(1, 8).Draw(t, "changes") {
			nodes := rapid.SliceOfNDistinct(rapid.Uint32Range(1, 9), 1, 9, rapid.ID).Draw(t, "nodes")
			ids := make([]image.NodeID, len(nodes))
			for i, n := range nodes {
				ids[i] = image.NodeID(n)
			}
			slices.Sort(ids)
			next := Layout(rows, ids)
			expectLayout(t, next, ids)
			for i := range rows {
				removed := func(n image.NodeID) bool { return !slices.Contains(ids, n) }
				stays := !slices.ContainsFunc(rows[i], removed) && len(ids) <= len(rows[i])
				if stays && added(next[i], rows[i]) > 0 {
					t.Fatalf("shard %d moved from %v to %v without need", i, rows[i], next[i])
				}
			}
			rows = next
		}
	})
}
