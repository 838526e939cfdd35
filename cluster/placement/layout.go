package placement

import (
	"slices"

	"imgcluster/cluster/image"
)

// ShardNodes is the number of nodes that hold a data shard; all nodes where there are fewer.
const ShardNodes = 3

// Layout assigns shards to nodes: row i of the result lists the nodes of the i-th shard, first the one that
// should lead it. Each shard gets ShardNodes nodes, or all when there are fewer. The numbers of shards that
// two nodes hold differ by at most one, and the shards that each should lead are as even as that allows.
// old is the layout before, with an empty row for a new shard; no more of it changes than necessary. The
// result depends on nothing but the arguments. nodes must not be empty.
func Layout(old [][]image.NodeID, nodes []image.NodeID) [][]image.NodeID {
	l := layout{
		nodes: slices.Clone(nodes),
		rows:  make([][]image.NodeID, len(old)),
		held:  map[image.NodeID]int{},
	}
	slices.Sort(l.nodes)
	for i, row := range old {
		for _, n := range row {
			if slices.Contains(l.nodes, n) {
				l.rows[i] = append(l.rows[i], n)
				l.held[n]++
			}
		}
	}
	for i := range l.rows {
		l.fill(i)
	}
	l.level(old)
	l.spreadLeaders()
	return l.rows
}

type layout struct {
	nodes []image.NodeID
	rows  [][]image.NodeID
	held  map[image.NodeID]int // shards on a node
}

// fill completes a row with the nodes that hold the fewest shards.
func (l *layout) fill(i int) {
	for len(l.rows[i]) < min(ShardNodes, len(l.nodes)) {
		inRow := func(n image.NodeID) bool { return slices.Contains(l.rows[i], n) }
		free := slices.DeleteFunc(slices.Clone(l.nodes), inRow)
		n := slices.MinFunc(free, func(a, b image.NodeID) int { return l.held[a] - l.held[b] })
		l.rows[i] = append(l.rows[i], n)
		l.held[n]++
	}
}

// level moves shards from the node with the most to the node with the fewest, first those whose rows have
// changed least.
func (l *layout) level(old [][]image.NodeID) {
	for {
		byHeld := func(a, b image.NodeID) int { return l.held[a] - l.held[b] }
		most := slices.MaxFunc(l.nodes, byHeld)
		least := slices.MinFunc(l.nodes, byHeld)
		if l.held[most]-l.held[least] <= 1 {
			return
		}
		best, changes := -1, 0
		for i, row := range l.rows {
			if !slices.Contains(row, most) || slices.Contains(row, least) {
				continue
			}
			if c := added(row, old[i]); best < 0 || c < changes {
				best, changes = i, c
			}
		}
		l.rows[best][slices.Index(l.rows[best], most)] = least
		l.held[most]--
		l.held[least]++
	}
}

// added returns the number of nodes of a row that are not in the old row.
func added(row, old []image.NodeID) (n int) {
	for _, id := range row {
		if !slices.Contains(old, id) {
			n++
		}
	}
	return n
}

// spreadLeaders moves a node to the front of each row, so that all nodes lead about the same number of rows.
// The first node counts one more: it leads the system shard.
func (l *layout) spreadLeaders() {
	leads := map[image.NodeID]int{l.nodes[0]: 1}
	for _, row := range l.rows {
		leads[row[0]]++
	}
	for l.moveLead(leads) {
	}
}

// moveLead moves the lead of one row from a node that leads too many to one that leads too few, by a chain
// of rows where necessary, and reports whether it did: augmenting paths, as in Kuhn, The Hungarian Method,
// 1955.
func (l *layout) moveLead(leads map[image.NodeID]int) bool {
	from := slices.Clone(l.nodes)
	slices.SortStableFunc(from, func(a, b image.NodeID) int { return leads[b] - leads[a] })
	for _, start := range from {
		// Breadth first: via[n] is the row that n would lead instead of its leader.
		via := map[image.NodeID]int{start: -1}
		for queue := []image.NodeID{start}; len(queue) > 0; queue = queue[1:] {
			at := queue[0]
			if leads[start]-leads[at] >= 2 {
				l.changeLeaders(via, at)
				leads[start]--
				leads[at]++
				return true
			}
			for i, row := range l.rows {
				if row[0] != at {
					continue
				}
				for _, n := range row[1:] {
					if _, seen := via[n]; !seen {
						via[n] = i
						queue = append(queue, n)
					}
				}
			}
		}
	}
	return false
}

// changeLeaders makes the node at lead its row of via, that row's former leader its row, and so on to the
// start.
func (l *layout) changeLeaders(via map[image.NodeID]int, at image.NodeID) {
	for i := via[at]; i >= 0; i = via[at] {
		row := l.rows[i]
		j := slices.Index(row, at)
		at = row[0]
		row[0], row[j] = row[j], row[0]
	}
}
