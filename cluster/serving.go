package cluster

import (
	"maps"
	"slices"
	"sync"
)

// serving is the set of shards of which this node has the newest state. It is safe for concurrent use.
type serving struct {
	changed func() // called after a change

	mu     sync.Mutex
	shards map[uint64]bool
}

func newServing(changed func()) *serving {
	return &serving{changed: changed, shards: map[uint64]bool{}}
}

// has reports whether this node has the newest state of a shard.
func (s *serving) has(shard uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shards[shard]
}

func (s *serving) set(shard uint64, is bool) {
	defer s.changed()
	s.mu.Lock()
	defer s.mu.Unlock()
	if is {
		s.shards[shard] = true
	} else {
		delete(s.shards, shard)
	}
}

// all lists the shards, the system shard among them, in order.
func (s *serving) all() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.shards))
}

// data lists the data shards, in order.
func (s *serving) data() []uint64 {
	return slices.DeleteFunc(s.all(), func(shard uint64) bool { return shard == systemShard })
}

// withSystem lists the system shard, served or not, then the data shards that are served.
func (s *serving) withSystem() []uint64 { return append([]uint64{systemShard}, s.data()...) }
