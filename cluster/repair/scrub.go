package repair

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wait"
	"imgcluster/cluster/wire"
)

// scrubLoop reads all copies of this node again and again. A scrub begins ScrubEvery after the last began.
func (s *Service) scrubLoop() {
	all := VerifyOptions{Sample: 1, Repair: true, Rate: s.ScrubRate}
	for next := min(s.ScrubEvery, scrubDelayMax); wait.For(s.ctx, next); {
		began := time.Now()
		sum, err := s.Verify(s.ctx, all, func(wire.VerifyLine) error { return nil })
		s.scrubbed.Add(sum.Images)
		if s.ctx.Err() != nil {
			return
		}
		s.Logger.Info("scrub ended", zap.Int64("images", sum.Images), zap.Int64("bad", sum.Bad),
			zap.Int64("repaired", sum.Repaired), zap.Int64("skipped", sum.Skipped),
			zap.Duration("in", time.Since(began)), zap.Error(err))
		next = max(time.Until(began.Add(s.ScrubEvery)), time.Second)
	}
}

// VerifyOptions are the settings of one Verify.
type VerifyOptions struct {
	Sample float64 // share of the copies that is read, up to 1
	Repair bool    // replace damaged and missing copies
	Rate   int64   // plaintext bytes a second, at most; 0 is no limit
}

// Verify reads this node's copies and authenticates every byte of them. It calls report once before the
// first copy and once after each, with the problem of a damaged or missing one. It returns the first error
// of report, of the catalog, or of ctx. A copy that could not be read is counted as skipped.
func (s *Service) Verify(
	ctx context.Context, o VerifyOptions, report func(wire.VerifyLine) error,
) (wire.VerifySummary, error) {
	sum := wire.VerifySummary{Node: s.Node}
	for _, shard := range s.Shards() {
		totals, err := catalog.ViewTotals(s.Log.View, shard)
		if err != nil {
			return sum, err
		}
		if node := totals.Nodes[s.Node]; node != nil {
			sum.OfImages += node.Stored.Images
			sum.OfBytes += node.Stored.Bytes
		}
	}
	if err := report(wire.VerifyLine{Type: wire.VerifyProgress, VerifySummary: sum}); err != nil {
		return sum, err
	}
	limit := limiter{rate: o.Rate}
	for _, shard := range s.Shards() {
		err := s.records(ctx, shard, func(rec *image.Record) error {
			if o.Sample < 1 && rand.Float64() >= o.Sample || !slices.Contains(rec.Replicas(), s.Node) {
				return nil
			}
			if o.Rate > 0 {
				limit.wait(ctx, rec.Bytes)
			}
			f, ok := s.check(ctx, rec, o.Repair)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return report(lineOf(rec, f, ok, &sum))
		})
		if err != nil {
			return sum, err
		}
	}
	return sum, nil
}

// lineOf adds the result of check to sum, and returns the line that reports both.
func lineOf(rec *image.Record, f *finding, checked bool, sum *wire.VerifySummary) wire.VerifyLine {
	line := wire.VerifyLine{Type: wire.VerifyProgress}
	if checked {
		sum.Images++
		sum.Bytes += rec.Bytes
	} else {
		sum.Skipped++
	}
	if f != nil {
		sum.Bad++
		if f.repaired {
			sum.Repaired++
		}
		line = wire.VerifyLine{
			Type: wire.VerifyBad, User: rec.User, Name: rec.Name, Upload: rec.ID.String(),
			Problem: f.err.Error(), Fixed: f.repaired,
		}
	}
	line.VerifySummary = *sum
	return line
}
