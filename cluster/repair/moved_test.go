package repair

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/clustertest/memkv"
	"imgcluster/cluster/image"
)

// movedLog is that of a node which a shard leaves: a command for it has no way into the log.
type movedLog struct{ gone atomic.Bool }

func (l *movedLog) Propose(context.Context, uint64, catalog.Command) (catalog.Result, error) {
	l.gone.Store(true)
	return catalog.Result{}, image.Errorf(image.KindInternal, "shard 2 does not run on this node")
}

func (l *movedLog) View(_ uint64, fn func(catalog.Reader) error) error { return fn(memkv.KV{}) }

type noCopies struct{ Copies }

func (noCopies) Keep(image.ID, uint32) (release func())                 { return func() {} }
func (noCopies) Fetch(context.Context, *image.Record, image.Copy) error { return nil }

// TestShardLeavesDuringRepair: the copy that is being made is given up, and others are made.
func TestShardLeavesDuringRepair(t *testing.T) {
	log := &movedLog{}
	s := New(Options{
		Node: 1, Log: log, Copies: noCopies{}, Logger: zap.NewNop(), Rate: 1 << 30,
		Up: func() []image.NodeID { return []image.NodeID{1, 2} },
		Shards: func() []uint64 {
			if log.gone.Load() {
				return nil
			}
			return []uint64{2}
		},
	})
	defer s.Close()
	done := make(chan bool)
	go func() {
		done <- s.make(s.ctx, &image.Record{ID: image.NewID(), Bytes: 1, Shard: 2, Copies: []image.Copy{{Node: 2, Epoch: 1}}, Wanted: 2}, nil)
	}()
	select {
	case made := <-done:
		if made {
			t.Error("a copy was made in a shard that is not here")
		}
	case <-time.After(5 * time.Second):
		t.Error("the repair does not end, and no other one can begin")
		s.stop()
		<-done
	}
}
