package load

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
)

// Memory is one worker's room for an image. It is outside the Go heap, where the collector would
// let freed images pile up to twice their size, and it counts against a budget that all workers
// share: with more workers than the budget has room for, some wait.
type Memory struct {
	budget *semaphore.Weighted
	most   int64 // of the budget
	held   int64
	mapped []byte
	waited time.Duration // for the budget, in all

	waiting *atomic.Int64 // is told who waits for the budget; may be nil
}

// newMemory returns room that nobody else shares.
func newMemory() *Memory {
	return &Memory{budget: semaphore.NewWeighted(memoryBytesMax), most: memoryBytesMax}
}

// Take returns size bytes of anything, the worker's own until its upload has ended. An image larger
// than the whole budget waits until it is alone.
func (m *Memory) Take(ctx context.Context, size int64) ([]byte, error) {
	need := min(size, m.most)
	if !m.budget.TryAcquire(need) {
		m.unmap() // or the pages of those who wait would come on top of the budget
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

// fit makes the mapping large enough, and gives back the pages behind size, which the budget does
// not count.
func (m *Memory) fit(size int) error {
	page := os.Getpagesize()
	size = (size + page - 1) / page * page
	if size <= len(m.mapped) {
		if size == len(m.mapped) {
			return nil
		}
		return unix.Madvise(m.mapped[size:], unix.MADV_DONTNEED)
	}
	m.unmap()
	var err error
	m.mapped, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	return err
}

func (m *Memory) release() {
	m.budget.Release(m.held)
	m.held = 0
}

func (m *Memory) unmap() {
	if m.mapped != nil {
		unix.Munmap(m.mapped) // cannot fail for a whole mapping of our own
	}
	m.mapped = nil
}
