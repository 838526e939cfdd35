package repair

import (
	"context"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wait"
	"imgcluster/cluster/wire"
)

// scrubLoop reads all copies of this node over and over, each pass ScrubEvery after the last began.
func (s *Service) scrubLoop() {
	for next := min(s.ScrubEvery, scrubGrace); wait.For(s.ctx, next); {
		began := time.Now()
		sum, err := s.Verify(s.ctx, VerifyOptions{Sample: 1, Repair: true, Rate: s.ScrubRate}, func(wire.VerifyLine) error { return nil })
		s.scrubbed.Add(sum.Images)
		if s.ctx.Err() != nil {
			return
		}
		s.Logger.Info("all copies were read over", zap.Int64("images", sum.Images), zap.Int64("bad", sum.Bad),
			zap.Int64("repaired", sum.Repaired), zap.Int64("skipped", sum.Skipped), zap.Duration("in", time.Since(began)), zap.Error(err))
		next = max(time.Until(began.Add(s.ScrubEvery)), time.Second)
	}
}

// VerifyOptions says what Verify reads and does.
type VerifyOptions struct {
	Sample float64 // share of the copies that is read, up to 1
	Repair bool    // replace what is bad
	Rate   int64   // bytes a second; 0 is no limit
}

// Verify reads this node's copies and authenticates every byte of them. It calls report first, and after
// each one, with what was found when it is bad, and ends with report's error.
func (s *Service) Verify(ctx context.Context, o VerifyOptions, report func(wire.VerifyLine) error) (wire.VerifySummary, error) {
	sum := wire.VerifySummary{Node: s.Node}
	for _, shard := range s.Shards() {
		err := s.Log.View(shard, func(r catalog.Reader) error {
			t, err := catalog.GetTotals(r)
			if err == nil && t.Nodes[s.Node] != nil {
				sum.OfImages += t.Nodes[s.Node].Stored.Images
				sum.OfBytes += t.Nodes[s.Node].Stored.Bytes
			}
			return err
		})
		if err != nil {
			return sum, err
		}
	}
	if err := report(wire.VerifyLine{Type: wire.VerifyProgress, VerifySummary: sum}); err != nil {
		return sum, err
	}
	limit := pace{rate: o.Rate}
	for _, shard := range s.Shards() {
		err := s.records(ctx, shard, func(rec *image.Record) error {
			if o.Sample < 1 && rand.Float64() >= o.Sample || !holds(rec, s.Node) {
				return nil
			}
			if o.Rate > 0 {
				limit.wait(ctx, rec.Bytes)
			}
			f, ok := s.check(ctx, rec, o.Repair)
			line := wire.VerifyLine{Type: wire.VerifyProgress}
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case !ok:
				sum.Skipped++
			default:
				sum.Images++
				sum.Bytes += rec.Bytes
			}
			if f != nil {
				sum.Bad++
				if f.Repaired {
					sum.Repaired++
				}
				line = wire.VerifyLine{
					Type: wire.VerifyBad, User: rec.User, Name: rec.Name, Upload: rec.ID.String(), Problem: f.Err.Error(), Fixed: f.Repaired,
				}
			}
			line.VerifySummary = sum
			return report(line)
		})
		if err != nil {
			return sum, err
		}
	}
	return sum, nil
}

func holds(rec *image.Record, node image.NodeID) bool {
	for _, c := range rec.Copies {
		if c.Node == node {
			return true
		}
	}
	return false
}
