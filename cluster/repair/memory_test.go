package repair

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// generated is the log of a node with one shard of so many images, all of which have a copy on node 1. They
// are made as they are read.
type generated struct{ images int }

func (g generated) Propose(context.Context, uint64, catalog.Command) (catalog.Result, error) {
	return catalog.Result{}, image.Errorf(image.KindNoQuorum, "nobody answers")
}

func (g generated) View(_ uint64, fn func(catalog.Reader) error) error { return fn(g) }

func (g generated) Get([]byte) ([]byte, error) { return nil, nil }

func (g generated) Scan(from, to []byte, fn func(key, value []byte) bool) error {
	if from[0] != 'r' { // the table of records
		return nil
	}
	first := 0
	fmt.Sscanf(string(from), "ralice\x00%d", &first) // 0 for the first one
	if len(from) > 0 && from[len(from)-1] == 0 {     // after that one
		first++
	}
	for i := first; i < g.images; i++ {
		rec := image.Record{
			ID:   image.ID{6: 0x70, 8: 0x80, 15: byte(i)},
			User: "alice", Name: fmt.Sprintf("%08d", i), Shard: 2, Wanted: 1,
			Copies: []image.Copy{{Node: 1, Attempt: image.Attempt{1}}, {Node: 2, Attempt: image.Attempt{2}}},
		}
		if !fn([]byte("ralice\x00"+rec.Name), catalog.EncodeRecord(&rec)) {
			return nil
		}
	}
	return nil
}

// lostCopies are copies of which none has a file, and none can be made.
type lostCopies struct {
	noCopies
	asked func()
}

func (l lostCopies) Has(image.FileID) (bool, error) { l.asked(); return false, nil }

func (lostCopies) Make(
	context.Context, *image.Record, image.Copy, image.Attempt,
) (image.Copy, error) {
	return image.Copy{}, image.Errorf(image.KindNoQuorum, "node 2 does not answer")
}

// TestMemoryOfLostDisk: what a node holds in memory while it finds out that all its copies are lost, and
// tries to make them again, does not grow with their number.
func TestMemoryOfLostDisk(t *testing.T) {
	const images = 20_000
	asked, first := 0, uint64(0)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	copies := lostCopies{asked: func() {
		switch asked++; asked {
		case images / 10:
			first = heap()
		case images, 2 * images: // at the end of the count, and of the attempts
			if now := heap(); now > first+1<<20 {
				t.Errorf("%d bytes after %d copies, %d after %d", first, images/10, now, asked)
			}
		}
	}}
	s := New(Options{
		Node: 1, Log: generated{images}, Copies: copies, Logger: zap.NewNop(), Rate: 1 << 50,
		Up:     func() []image.NodeID { return []image.NodeID{1, 2} },
		Shards: func() []uint64 { return []uint64{2} },
	})
	defer s.Close()
	if err := s.restoreOwn(t.Context()); err != nil {
		t.Fatal(err)
	}
	if missing := s.Stats().Missing; missing != images || asked != 2*images || s.complete[2] {
		t.Errorf("%d copies missing, %d asked for, want %d and %d", missing, asked, images, 2*images)
	}
}
