package ingest

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// ChunkBytes is the unit in which image bytes are held in memory, one piece of an image in each.
const ChunkBytes = 256 << 10

// windowChunks is what every upload may hold even when the arena is full: one chunk that is read
// into while another is worked on.
const windowChunks = 2

// arena is the memory for image bytes between the network and the disk, of a fixed size. It lies
// outside the Go heap, so that the collector does not double it, and is left out of core files,
// so that no plaintext reaches the disk that way.
//
// An upload first takes a quota: its whole size when there is room, else windowChunks, which are
// set aside for every upload that the node admits. Quotas never add up to more than the arena, so
// taking a chunk within a quota never waits, and uploads cannot lock each other out.
type arena struct {
	mem  []byte
	mu   sync.Mutex
	free [][]byte // chunks that were used before; these first, to touch little memory
	next int      // chunks of mem never used so far
	hold int      // chunks that may still be promised to whole uploads
	used int      // chunks in use
}

func newArena(bytes int64, uploads int) (*arena, error) {
	chunks := int(bytes / ChunkBytes)
	window := uploads * windowChunks
	if chunks < window {
		return nil, fmt.Errorf("staging of %d bytes is too small for %d uploads at once: they need %d",
			bytes, uploads, window*ChunkBytes)
	}
	mem, err := unix.Mmap(-1, 0, chunks*ChunkBytes, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("staging memory of %d bytes: %w", bytes, err)
	}
	if err := keepOutOfCore(mem); err != nil {
		return nil, fmt.Errorf("staging memory: keep out of core files: %w", err)
	}
	return &arena{mem: mem, hold: chunks - window}, nil
}

func (a *arena) close() error { return unix.Munmap(a.mem) }

// reserve promises n chunks, or none when there is no room.
func (a *arena) reserve(n int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n > a.hold {
		return false
	}
	a.hold -= n
	return true
}

// unreserve returns n promised chunks.
func (a *arena) unreserve(n int) {
	a.mu.Lock()
	a.hold += n
	a.mu.Unlock()
}

// take returns a chunk of ChunkBytes; the caller keeps within its quota.
func (a *arena) take() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.used++
	if n := len(a.free); n > 0 {
		c := a.free[n-1]
		a.free = a.free[:n-1]
		return c
	}
	c := a.mem[a.next*ChunkBytes : (a.next+1)*ChunkBytes : (a.next+1)*ChunkBytes]
	a.next++
	return c
}

func (a *arena) give(c []byte) {
	a.mu.Lock()
	a.used--
	a.free = append(a.free, c[:ChunkBytes])
	a.mu.Unlock()
}

// bytes returns how much is in use.
func (a *arena) bytes() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return int64(a.used) * ChunkBytes
}
