package consensus

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"imgcluster/cluster/image"
)

// rotated returns candidates for shards: the i-th should be led by its member i mod n, by ID; 13 shards on
// three nodes are thus led 5, 4 and 4.
func rotated(shards []Shard) []Candidates {
	candidates := make([]Candidates, len(shards))
	for i, s := range shards {
		ids := slices.Sorted(maps.Keys(s.Members))
		if len(ids) > 0 {
			ids[0], ids[i%len(ids)] = ids[i%len(ids)], ids[0]
		}
		candidates[i] = Candidates{s.ID, ids}
	}
	return candidates
}

// candidatesOn returns the candidates of n bootstrapped shards; the i-th is on the members that on returns.
func candidatesOn(n int, on func(i int) []image.NodeID) []Candidates {
	shards := make([]Shard, n)
	for i := range shards {
		shards[i] = Shard{ID: uint64(i + 1), Members: map[image.NodeID]string{}}
		for _, id := range on(i) {
			shards[i].Members[id] = fmt.Sprint(id)
		}
	}
	return rotated(shards)
}

func set(ids ...image.NodeID) map[image.NodeID]bool {
	m := map[image.NodeID]bool{}
	for _, id := range ids {
		m[id] = true
	}
	return m
}

func TestPlan(t *testing.T) {
	three := func(int) []image.NodeID { return []image.NodeID{1, 2, 3} }
	for _, c := range []struct {
		what       string
		candidates []Candidates
		live       map[image.NodeID]bool
		want       map[image.NodeID]int
	}{
		{"all live", candidatesOn(13, three), set(1, 2, 3), map[image.NodeID]int{1: 5, 2: 4, 3: 4}},
		{"1 away", candidatesOn(13, three), set(2, 3), map[image.NodeID]int{2: 7, 3: 6}},
		{"2 away", candidatesOn(13, three), set(1, 3), map[image.NodeID]int{1: 7, 3: 6}},
		{"only 3", candidatesOn(13, three), set(3), map[image.NodeID]int{3: 13}},
		{"nobody", candidatesOn(13, three), set(), map[image.NodeID]int{}},
		{
			"one node", candidatesOn(13, func(int) []image.NodeID { return []image.NodeID{1} }), set(1),
			map[image.NodeID]int{1: 13},
		},
		{"three of five", candidatesOn(15, func(i int) []image.NodeID {
			return []image.NodeID{image.NodeID(i%5 + 1), image.NodeID((i+1)%5 + 1), image.NodeID((i+2)%5 + 1)}
		}), set(1, 2, 3, 4, 5), map[image.NodeID]int{1: 3, 2: 3, 3: 3, 4: 3, 5: 3}},
	} {
		got := map[image.NodeID]int{}
		for shard, leader := range plan(c.candidates, c.live) {
			got[leader]++
			if !slices.Contains(c.candidates[shard-1].Nodes, leader) || !c.live[leader] {
				t.Errorf("%s: shard %d is planned for %d", c.what, shard, leader)
			}
		}
		if !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

// FuzzPlan: each shard with a live member has a leader that is a live member, and the one it would
// have with all live unless that one is down.
func FuzzPlan(f *testing.F) {
	f.Add(uint8(13), uint8(3), uint16(0b011))
	f.Fuzz(func(t *testing.T, n, nodes uint8, liveBits uint16) {
		nodes = nodes%16 + 1
		live := set()
		all := set()
		candidates := candidatesOn(int(n), func(i int) []image.NodeID {
			var ids []image.NodeID
			for j := range min(int(nodes), 3) {
				ids = append(ids, image.NodeID((i*7+j)%int(nodes)+1))
			}
			return ids
		})
		for i := range nodes {
			id := image.NodeID(i + 1)
			all[id] = true
			if liveBits>>i&1 == 1 {
				live[id] = true
			}
		}
		first := plan(candidates, all)
		got := plan(candidates, live)
		for _, r := range candidates {
			leader, planned := got[r.Shard]
			any := slices.ContainsFunc(r.Nodes, func(id image.NodeID) bool { return live[id] })
			switch {
			case planned != any:
				t.Fatalf("shard %d planned %v, has live members %v", r.Shard, planned, any)
			case planned && (!live[leader] || !slices.Contains(r.Nodes, leader)):
				t.Fatalf("shard %d is planned for %d", r.Shard, leader)
			case live[first[r.Shard]] && leader != first[r.Shard]:
				t.Fatalf("shard %d moved from %d to %d", r.Shard, first[r.Shard], leader)
			}
		}
	})
}

// TestBalancerRounds follows the requests of node 1 for the shards 1 and 3 of four on two nodes.
func TestBalancerRounds(t *testing.T) {
	var asked []string
	leads := map[uint64]image.NodeID{1: 2, 2: 2, 3: 2, 4: 2}
	behind := map[uint64]bool{}
	b := balancer{
		self: 1, tries: map[uint64]try{},
		candidates: func() []Candidates {
			return candidatesOn(4, func(int) []image.NodeID { return []image.NodeID{1, 2} })
		},
		leader:   func(s uint64) (image.NodeID, uint64, bool) { return leads[s], 1, leads[s] != 0 },
		caughtUp: func(s uint64) bool { return !behind[s] },
		transfer: func(s uint64, to image.NodeID) { asked = append(asked, fmt.Sprintf("%d to %d", s, to)) },
	}
	round := func(want ...string) {
		t.Helper()
		asked = nil
		b.round(set(1, 2))
		if !slices.Equal(asked, want) {
			t.Errorf("asked for %q, want %q", asked, want)
		}
	}
	if b.balanced(set(1, 2)) {
		t.Error("balanced while node 2 leads all")
	}
	behind[3] = true
	round("1 to 1") // 3 is not ready to be taken over
	behind[3] = false
	leads[1] = 1
	round("3 to 1")
	round("3 to 1") // the first request came to nothing
	round()
	round("3 to 1") // one round later
	round()
	round()
	round()
	round("3 to 1") // three rounds later
	leads[3] = 0
	round() // nobody to ask
	leads[3] = 1
	round()
	if !b.balanced(set(1, 2)) {
		t.Error("not balanced at the end")
	}
	leads[3] = 2
	round("3 to 1") // at once again

	asked = nil
	b.self = 2
	b.round(set(2))
	if !slices.Equal(asked, []string{"1 to 2"}) {
		t.Errorf("node 2, with node 1 away, asked for %q", asked)
	}
}
