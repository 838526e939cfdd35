package load

import (
	"context"
	"errors"
	"math"
	"os"
	"regexp"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"

	"imgcluster/genimg"
	"imgcluster/modes/runlog"
)

// A worker that waits for the budget has no memory mapped. One that takes a smaller image gives back the
// pages behind it, and memory that was given back can be taken again.
func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 1 << 20
		budget := semaphore.NewWeighted(most)
		first := &Memory{budget: budget, max: most}
		waiting := &Memory{budget: budget, max: most}
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
			t.Error("the pages behind a small image were not given back")
		}
		fill(first, most)
		got := make(chan struct{})
		go func() {
			defer close(got)
			fill(waiting, 10)
		}()
		synctest.Wait()
		if waiting.mapped != nil {
			t.Error("a worker that waits has memory mapped")
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

// The images in flight fit the budget, whatever the number of workers. One that is larger than the budget
// is alone.
func TestImagesFitBudget(t *testing.T) {
	const budget = 100_000 // images here have up to 80 kB
	for _, spec := range []genimg.Spec{{MinPixels: 16, MaxPixels: 200}, {MinPixels: 300, MaxPixels: 300}} {
		var images peak // bytes
		put := func(_ context.Context, up Upload) (Outcome, error) {
			defer images.add(up.Size)()
			whole(up)
			return good(up), nil
		}
		logged, err := drive(t, t.Context(), Options{
			Run:    runlog.Run{Count: 60, Concurrency: 16},
			Target: target{put: put},
			Source: Generated{spec},
			Memory: budget,
		})
		if err != nil || len(logged["upload"]) != 60 {
			t.Errorf("%v, %d uploads", err, len(logged["upload"]))
		}
		if limit := max(budget, spec.Image(3).Size); images.max > limit {
			t.Errorf("%d bytes of images at once, the limit is %d", images.max, limit)
		}
	}
}

// Images here have up to 80 kB. With 100 kB for them, few of 64 workers are busy, and the log says how
// long they waited.
func TestWaitForBudgetIsRecorded(t *testing.T) {
	for _, rate := range []float64{0, 10} {
		logged, waiting := driveWithBudget(t, rate, 100_000)
		events := logged["event"]
		if len(events) != 1 || events[0].Kind != runlog.EventMemory || waiting < 5 {
			t.Fatalf("rate %v: %d waited, events %+v", rate, waiting, events)
		}
		if rate == 0 {
			continue
		}
		waited, err := strconv.ParseFloat(regexp.MustCompile(`\d+\.\d`).FindString(events[0].Detail), 64)
		if err != nil {
			t.Fatal(err)
		}
		late := 0.0
		for _, u := range logged["upload"] {
			late += u.StartS - *u.ScheduledS
		}
		if math.Abs(waited-late) > 1 {
			t.Errorf("uploads waited %v s and were %v s late", waited, late)
		}
	}
}

func TestNoWaitForBudget(t *testing.T) {
	for _, rate := range []float64{0, 10} {
		logged, waiting := driveWithBudget(t, rate, 100<<20)
		if events := logged["event"]; len(events) != 0 || waiting != 0 {
			t.Errorf("rate %v: %d waited, events %+v", rate, waiting, events)
		}
	}
}

// driveWithBudget makes a run of 64 workers whose uploads take a second. It returns the log, and how many
// workers waited for the budget at the same time.
func driveWithBudget(t *testing.T, rate float64, bytes int64) (logged map[string][]line, mostWaiting int64) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var waiting, most atomic.Int64
		put := func(ctx context.Context, up Upload) (Outcome, error) {
			out, err := slowPut(time.Second)(ctx, up)
			most.Store(max(most.Load(), waiting.Load()))
			return out, err
		}
		var err error
		logged, err = drive(t, t.Context(), Options{
			Run:     runlog.Run{Count: 60, Concurrency: 64, Rate: rate},
			Target:  target{put: put},
			Memory:  bytes,
			Waiting: &waiting,
		})
		if err != nil || waiting.Load() != 0 {
			t.Errorf("%v, %d still wait", err, waiting.Load())
		}
		mostWaiting = most.Load()
	})
	return logged, mostWaiting
}
