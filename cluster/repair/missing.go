package repair

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/placement"
)

func (s *Service) repairLoop() {
	ticker := time.NewTicker(s.Every)
	defer ticker.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-ticker.C:
		case <-s.kick:
		}
		if err := s.makeMissing(s.ctx); err != nil && s.ctx.Err() == nil {
			s.Logger.Warn("could not repair the images with too few copies", zap.Error(err))
		}
		if err := s.rewrap(s.ctx); err != nil && s.ctx.Err() == nil {
			s.Logger.Warn("could not encrypt copies again under their users' newer keys", zap.Error(err))
		}
	}
}

// makeMissing makes, in all shards, the missing copies that this node is to make.
func (s *Service) makeMissing(ctx context.Context) error {
	if err := s.restoreOwn(ctx); err != nil {
		return err
	}
	leaving := s.Leaving()
	for _, shard := range s.Shards() {
		totals, err := catalog.ViewTotals(s.Log.View, shard)
		if err != nil {
			return err
		}
		if !s.lacksCopies(shard, totals, leaving) {
			continue
		}
		err = s.records(ctx, shard, func(rec *image.Record) error {
			drop, mine := toMake(rec, s.Node, s.ShardNodes(shard), s.Room(shard), leaving)
			if mine && s.makeCopy(ctx, rec, drop) {
				s.made.Add(1)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// lacksCopies reports whether a shard has images with too few copies, or copies on nodes that leave or are
// no members of the shard.
func (s *Service) lacksCopies(shard uint64, totals *catalog.Totals, leaving []image.NodeID) bool {
	if totals.UnderReplicated > 0 {
		return true
	}
	members := s.ShardNodes(shard)
	for id, sum := range totals.Nodes {
		if sum.Stored.Images > 0 && (slices.Contains(leaving, id) || !slices.Contains(members, id)) {
			return true
		}
	}
	return false
}

// ownCopy is a copy that the log has on this node.
type ownCopy struct {
	rec  *image.Record
	copy image.Copy
}

// restoreOwn makes the copies again that the log has on this node and that have no file, as after the loss
// of the disk. A shard of which all files are there is not searched again.
func (s *Service) restoreOwn(ctx context.Context) error {
	var lost []ownCopy
	var searched []uint64
	for _, shard := range s.Shards() {
		if s.complete[shard] {
			continue
		}
		more, err := s.lostCopies(ctx, shard)
		if err != nil {
			return err
		}
		lost = append(lost, more...)
		searched = append(searched, shard)
	}
	if len(lost) > 0 {
		s.Logger.Warn("copies are missing on this node", zap.Int("images", len(lost)))
	}
	s.missing.Store(int64(len(lost)))
	for _, x := range lost {
		// A failure is logged; the next search tries again.
		if s.makeCopy(ctx, x.rec, []image.Copy{x.copy}) {
			s.made.Add(1)
			s.missing.Add(-1)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if s.missing.Load() == 0 {
		for _, shard := range searched {
			s.complete[shard] = true
		}
	}
	return nil
}

// lostCopies returns the copies of a shard that the log has on this node and that have no file.
func (s *Service) lostCopies(ctx context.Context, shard uint64) (lost []ownCopy, err error) {
	err = s.records(ctx, shard, func(rec *image.Record) error {
		i := slices.Index(rec.Replicas(), s.Node)
		if i < 0 {
			return nil
		}
		has, err := s.Copies.Has(rec.File(rec.Copies[i]))
		if err == nil && !has {
			lost = append(lost, ownCopy{rec, rec.Copies[i]})
		}
		return err
	})
	return lost, err
}

// records calls fn with each record of a shard, until fn returns an error or ctx ends. The catalog is not
// held meanwhile: it is read in batches.
func (s *Service) records(ctx context.Context, shard uint64, fn func(*image.Record) error) error {
	for after := []byte(nil); ; {
		var batch []*image.Record
		err := s.Log.View(shard, func(r catalog.Reader) (err error) {
			batch, after, err = catalog.Records(r, after, batchRecords)
			return err
		})
		if err != nil {
			return err
		}
		for _, rec := range batch {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := fn(rec); err != nil {
				return err
			}
		}
		if after == nil {
			return nil
		}
	}
}

// toMake reports whether the node self is to make one of an image's missing copies, and which copy it
// replaces: one on a node that leaves or is no member of the shard. All nodes with the same view decide
// alike. When their views differ, two may make the same copy, and the log takes one of them.
func toMake(
	rec *image.Record, self image.NodeID, members, room, leaving []image.NodeID,
) (drop []image.Copy, mine bool) {
	var lost []image.Copy
	for _, c := range rec.Copies {
		if slices.Contains(leaving, c.Node) || !slices.Contains(members, c.Node) {
			lost = append(lost, c)
		}
	}
	var free []image.NodeID
	for _, n := range placement.Rank(rec.User, rec.Name, members) {
		if slices.Contains(room, n) && !slices.Contains(rec.Replicas(), n) {
			free = append(free, n)
		}
	}
	rank := slices.Index(free, self)
	additional := max(0, rec.Wanted-len(rec.Copies))
	switch {
	case rank < 0 || rank >= additional+len(lost):
		return nil, false
	case rank < additional:
		return nil, true
	}
	return lost[rank-additional : rank-additional+1], true
}
