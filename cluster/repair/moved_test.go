package repair

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/clustertest/memkv"
	"imgcluster/cluster/image"
)

// movedLog is the log of a node from which a shard moves away at the first proposal, which fails.
type movedLog struct{ moved bool }

func (l *movedLog) Propose(context.Context, uint64, catalog.Command) (catalog.Result, error) {
	l.moved = true
	return catalog.Result{}, image.Errorf(image.KindInternal, "shard 2 does not run on this node")
}

func (l *movedLog) View(_ uint64, fn func(catalog.Reader) error) error { return fn(memkv.KV{}) }

type noCopies struct{ Copies }

func (noCopies) Pin(image.FileID) (release func()) { return func() {} }

func (noCopies) Make(
	_ context.Context, _ *image.Record, _ image.Copy, to image.Attempt,
) (image.Copy, error) {
	return image.Copy{Node: 1, Attempt: to}, nil
}

// TestShardMovesDuringRepair: a repair of a shard that moves away ends without a copy.
func TestShardMovesDuringRepair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &movedLog{}
		s := New(Options{
			Node: 1, Log: log, Copies: noCopies{}, Logger: zap.NewNop(), Rate: 1 << 30,
			Acted: func(uint64) uint64 { return 0 },
			Up:    func() []image.NodeID { return []image.NodeID{1, 2} },
			Shards: func() []uint64 {
				if log.moved {
					return nil
				}
				return []uint64{2}
			},
		})
		defer s.Close()
		rec := &image.Record{
			ID: image.NewID(), Bytes: 1, Shard: 2, Wanted: 2,
			Copies: []image.Copy{{Node: 2, Attempt: image.NewAttempt()}},
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if s.makeCopy(ctx, rec, nil) {
			t.Error("a copy was made in a shard that this node does not have")
		}
		if ctx.Err() != nil {
			t.Error("the repair does not end")
		}
	})
}
