package ingest

import (
	"context"
	"testing"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// removals is a vault that counts the files that are deleted.
type removals struct {
	Vault
	removed int
}

func (r *removals) Remove(image.ID, uint32) error { r.removed++; return nil }

// More deletes at once than are queued: those that fit are done, and the sweep is told of the rest once.
func TestLeftover(t *testing.T) {
	vault := &removals{}
	s := &Service{Options: Options{Node: 1, Vault: vault}, remove: make(chan image.Record, 2), swept: make(chan struct{}, 1)}
	var stop context.CancelFunc
	s.ctx, stop = context.WithCancel(t.Context())
	remove := func(n int) {
		for range n {
			s.Applied(testShard, []catalog.Event{{Removed: &image.Record{ID: image.NewID(), Copies: []image.Copy{{Node: 1}, {Node: 2}}}}})
		}
	}
	remove(2)
	ended := make(chan struct{})
	remove(3)
	go func() {
		defer close(ended)
		s.collect()
	}()
	<-s.Leftover()
	stop()
	<-ended
	if vault.removed != 2 || len(s.Leftover()) != 0 {
		t.Errorf("%d files were deleted, told again: %d", vault.removed, len(s.Leftover()))
	}
}
