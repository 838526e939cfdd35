package load

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// Memory is a worker's memory for an image. It is outside the Go heap, since the garbage collector would
// let freed images pile up to twice their size. It counts against a budget that all workers share: when
// that is used up, workers wait.
type Memory struct {
	budget *semaphore.Weighted
	max    int64 // of the budget
	held   int64
	mapped []byte
	waited time.Duration // for the budget, in total

	waiting *atomic.Int64 // counts the workers that wait for the budget; may be nil
}

// newMemory returns a Memory with a budget of its own.
func newMemory() *Memory {
	return &Memory{budget: semaphore.NewWeighted(memoryBytesMax), max: memoryBytesMax}
}

// Take returns size bytes with any content, for the worker until its upload has ended. An image larger
// than the budget gets all of it.
func (m *Memory) Take(ctx context.Context, size int64) ([]byte, error) {
	need := min(size, m.max)
	if !m.budget.TryAcquire(need) {
		m.unmap() // the pages of workers that wait are not in the budget
		if err := m.wait(ctx, need); err != nil {
			return nil, err
		}
	}
	m.held += need
	if err := m.fit(int(size)); err != nil {
		return nil, fmt.Errorf("no memory for an image of %d bytes: %w", size, err)
	}
	return m.mapped[:size], nil
}

func (m *Memory) wait(ctx context.Context, need int64) error {
	if m.waiting != nil {
		m.waiting.Add(1)
		defer m.waiting.Add(-1)
	}
	began := time.Now()
	defer func() { m.waited += time.Since(began) }()
	return m.budget.Acquire(ctx, need)
}

// fit makes the mapping large enough, and gives back the memory pages behind size, which are not in the
// budget.
func (m *Memory) fit(size int) error {
	pageBytes := os.Getpagesize()
	size = (size + pageBytes - 1) / pageBytes * pageBytes
	if size <= len(m.mapped) {
		if size == len(m.mapped) {
			return nil
		}
		return giveBack(m.mapped[size:])
	}
	m.unmap()
	var err error
	m.mapped, err = mapPages(size)
	return err
}

func (m *Memory) release() {
	m.budget.Release(m.held)
	m.held = 0
}

func (m *Memory) unmap() {
	if m.mapped != nil {
		unmapPages(m.mapped) // cannot fail for a whole mapping
	}
	m.mapped = nil
}
