package ingest

import (
	"context"
	"testing"

	"imgcluster/cluster/image"
)

// countingVault counts the files that are deleted.
type countingVault struct {
	Store
	removed int
}

func (v *countingVault) Remove(image.FileID) error { v.removed++; return nil }

// TestLeftover has more deletes at once than are queued: those that fit are done, and the sweep is asked for
// the rest once.
func TestLeftover(t *testing.T) {
	vault := &countingVault{}
	c := newCollector(&Options{Node: 1, Store: vault})
	for range removalsMax + 3 {
		c.remove(&image.Record{ID: image.NewID(), Copies: []image.Copy{{Node: 1}, {Node: 2}}})
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.run(ctx)
	}()
	<-c.leftover
	stop()
	<-ended
	if vault.removed != removalsMax {
		t.Errorf("%d files were deleted, want the %d that are queued", vault.removed, removalsMax)
	}
	if len(c.leftover) != 0 {
		t.Error("the sweep is asked again")
	}
}
