package consensus

import (
	"maps"
	"testing"

	"imgcluster/cluster/image"
)

// TestHandoverRounds has one shard recover, another hang, and a third without a leader for a while.
func TestHandoverRounds(t *testing.T) {
	asked := map[uint64]int{}
	leads := map[uint64]image.NodeID{1: 1, 2: 1, 3: 1, 4: 2}
	h := handover{
		self: 1, candidates: candidatesOn(5, func(int) []image.NodeID { return []image.NodeID{1, 2} }),
		given: map[uint64]int{}, wait: map[uint64]int{},
		leader: func(s uint64) (image.NodeID, uint64, bool) { return leads[s], 1, leads[s] != 0 },
		transfer: func(s uint64, to image.NodeID) {
			if to != 2 {
				t.Errorf("shard %d is handed to node %d", s, to)
			}
			asked[s]++
		},
	}
	round := func(more bool, want map[uint64]int) {
		t.Helper()
		if got := h.round(set(2), 4); got != more || !maps.Equal(asked, want) {
			t.Errorf("asked %v, more %v; want %v, %v", asked, got, want, more)
		}
		clear(asked)
	}
	round(true, map[uint64]int{1: 1, 2: 1, 3: 1}) // 4 is led elsewhere, 5 by nobody
	leads[1] = 2
	leads[3] = 0 // 3: the election is under way
	round(true, nil)
	leads[1] = 1 // somebody gives it back
	round(true, map[uint64]int{1: 1})
	leads[1] = 2
	leads[3] = 2
	round(true, nil)
	leads[1] = 1
	round(true, map[uint64]int{1: 1}) // the third time
	leads[1] = 2
	round(true, map[uint64]int{2: 1}) // 2 hangs: it is asked again after 4 rounds
	leads[1] = 1                      // that is enough
	for range 4 {
		round(true, nil)
	}
	round(true, map[uint64]int{2: 1}) // and so on, for as long as there is time
	leads[2] = 0
	for range 10 {
		h.round(set(2), 4)
	}
	round(false, nil) // no election came of it
	leads[2] = 2
	round(false, nil)
	leads[2] = 1
	if h.round(set(), 4) {
		t.Error("waits though nobody is there to take over")
	}
}
