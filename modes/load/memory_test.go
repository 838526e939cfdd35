package load

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"

	"golang.org/x/sync/semaphore"
)

// A worker that waits for the budget holds no pages; one that gets a smaller image keeps only what
// it needs, and room it has once had is as good as new.
func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 1 << 20
		budget := semaphore.NewWeighted(most)
		first := &Memory{budget: budget, most: most}
		waiting := &Memory{budget: budget, most: most}
		defer first.unmap()
		defer waiting.unmap()
		fill := func(m *Memory, size int64) {
			b, err := m.Take(t.Context(), size)
			if err != nil || int64(len(b)) != size {
				t.Errorf("%d bytes: %d, %v", size, len(b), err)
			}
			for i := range b {
				b[i] = 1
			}
		}
		for _, size := range []int64{1, 4096, 4097, most, 100_000, 100_001, most + 1, 5} {
			fill(waiting, size)
			waiting.release()
		}
		if waiting.mapped[2*os.Getpagesize()] != 0 {
			t.Error("pages behind a small image are kept")
		}
		fill(first, most)
		got := make(chan struct{})
		go func() {
			defer close(got)
			fill(waiting, 10)
		}()
		synctest.Wait()
		if waiting.mapped != nil {
			t.Error("pages are held while waiting")
		}
		first.release()
		<-got
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := first.Take(ctx, most); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		first.release()
		waiting.release()
	})
}
