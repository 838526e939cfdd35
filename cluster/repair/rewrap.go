package repair

import (
	"context"
	"slices"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// rewrap makes this node's copies again that are under older keys than their users' copies may be.
func (s *Service) rewrap(ctx context.Context) error {
	type rewrapping struct {
		user  string
		least uint32
	}
	var all []rewrapping
	err := s.Log.View(catalog.SystemShard, func(r catalog.Reader) error {
		return catalog.Rewraps(r, func(user string, least uint32) { all = append(all, rewrapping{user, least}) })
	})
	if err != nil {
		return err
	}
	for _, x := range all {
		for _, shard := range s.Shards() {
			if err := s.rewrapShard(ctx, shard, x.user, x.least); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) rewrapShard(ctx context.Context, shard uint64, user string, least uint32) error {
	for after, more := "", true; more; {
		var batch []*image.Record
		err := s.Log.View(shard, func(r catalog.Reader) error {
			old, err := catalog.OldCopies(r, user, least)
			if more = old[s.Node] > 0; err != nil || !more {
				return err
			}
			return catalog.ListRecords(r, user, "", after, func(rec *image.Record) bool {
				batch = append(batch, rec)
				return len(batch) < batchRecords
			})
		})
		if err != nil {
			return err
		}
		if more = len(batch) == batchRecords; len(batch) > 0 {
			after = batch[len(batch)-1].Name
		}
		for _, rec := range batch {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			i := slices.IndexFunc(rec.Copies, func(c image.Copy) bool { return c.Node == s.Node && c.Key < least })
			if i < 0 {
				continue
			}
			own := []image.Copy{rec.Copies[i]}
			if s.makeCopyFrom(ctx, rec, own, own) { // else the next search tries again
				s.rewrapped.Add(1)
			}
		}
	}
	return nil
}
