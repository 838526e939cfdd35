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

// restoreOwn makes the copies again that the log has on this node and that have no file, as after the loss
// of the disk. A shard of which all files are there is not searched again. The copies are counted before the
// first is made, and not kept: they may be all that there are.
func (s *Service) restoreOwn(ctx context.Context) error {
	missing := int64(0)
	var searched []uint64
	for _, shard := range s.Shards() {
		if s.complete[shard] {
			continue
		}
		n, err := s.countLost(ctx, shard)
		if err != nil {
			return err
		}
		s.complete[shard] = n == 0
		if n > 0 {
			missing += n
			searched = append(searched, shard)
		}
	}
	s.missing.Store(missing)
	if missing == 0 {
		return nil
	}
	s.Logger.Warn("copies are missing on this node", zap.Int64("images", missing))
	for _, shard := range searched {
		if err := s.restoreLost(ctx, shard); err != nil {
			return err
		}
	}
	return nil
}

// countLost returns the number of copies of a shard that the log has on this node and that have no file.
func (s *Service) countLost(ctx context.Context, shard uint64) (n int64, err error) {
	err = catalog.EachFile(s.Log.View, shard, s.Node, func(f image.FileID) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		has, err := s.Copies.Has(f)
		if err == nil && !has {
			n++
		}
		return err
	})
	return n, err
}

// restoreLost makes those copies again. A failure is logged; the next search tries again.
func (s *Service) restoreLost(ctx context.Context, shard uint64) error {
	all := true
	err := s.records(ctx, shard, func(rec *image.Record) error {
		i := slices.Index(rec.Replicas(), s.Node)
		if i < 0 {
			return nil
		}
		own := rec.Copies[i : i+1]
		switch has, err := s.Copies.Has(rec.File(own[0])); {
		case has || err != nil:
			return err
		case !s.makeCopy(ctx, rec, own):
			all = false
		default:
			s.made.Add(1)
			s.missing.Store(max(0, s.missing.Load()-1)) // more may be missing by now than were counted
		}
		return nil
	})
	s.complete[shard] = err == nil && all
	return err
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
