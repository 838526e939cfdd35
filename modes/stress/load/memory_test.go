package load

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"

	"imgcluster/modes/runlog"
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

// With images of 80 kB at most and 100 kB for them, few of 64 workers are busy, and the log says why: with
// enough memory it says nothing.
func TestMemoryTold(t *testing.T) {
	for _, rate := range []float64{0, 10} {
		for _, memory := range []int64{100_000, 100 << 20} {
			synctest.Test(t, func(t *testing.T) {
				var waiting, most atomic.Int64
				put := func(_ context.Context, up Upload) (Outcome, error) {
					time.Sleep(time.Second)
					most.Store(max(most.Load(), waiting.Load()))
					return good(up), nil
				}
				logged, err := drive(t, t.Context(), Options{
					Run: runlog.Run{Count: 60, Concurrency: 64, Rate: rate}, Target: target{put: put}, Memory: memory, Waiting: &waiting,
				})
				if err != nil || waiting.Load() != 0 {
					t.Errorf("%v, %d still wait", err, waiting.Load())
				}
				events := logged["event"]
				if memory > 1<<20 {
					if len(events) != 0 || most.Load() != 0 {
						t.Errorf("rate %v: %d waited, events %+v", rate, most.Load(), events)
					}
					return
				}
				if len(events) != 1 || events[0].Kind != runlog.EventMemory || !strings.HasPrefix(events[0].Detail, "uploads waited ") || most.Load() < 5 {
					t.Errorf("rate %v: %d waited, events %+v", rate, most.Load(), events)
				}
				var waited, want float64
				if _, err := fmt.Sscanf(events[0].Detail, "uploads waited %f", &waited); err != nil {
					t.Error(err)
				}
				for _, u := range logged["upload"] {
					want += u.StartS - value(u.ScheduledS)
				}
				if rate > 0 && math.Abs(waited-want) > 1 {
					t.Errorf("uploads waited %v s and were %v s late", waited, want)
				}
			})
		}
	}
}

func value(p *float64) float64 {
	if p == nil {
		return 0
	}
	return *p
}
