package ingest

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imgcluster/cluster/hostinfo"
	"imgcluster/cluster/image"
)

// TestLargerThanMemory sends images at once, each of them larger than all that a node may hold: they go
// through its window. The process grows by the staging of its three nodes and little else.
func TestLargerThanMemory(t *testing.T) {
	const (
		staging   = 4 << 20
		imageSize = 32 << 20
		uploads   = 4
		otherMax  = 32 << 20 // buffers, stacks, and what the collector has yet to free
	)
	f := newFleet(t, func(o *Options) {
		o.StagingBytes = staging
		o.TakeoverTimeout = time.Minute
	})
	for _, v := range f.vaults {
		v.digestOnly = true
	}
	digest := sha256.New()
	io.Copy(digest, noise(imageSize))

	memory := newMemory()
	body := func(image.NodeID) io.Reader { return memory.sampledBy(noise(imageSize)) }
	answers := make([][]answer, uploads)
	var sent sync.WaitGroup
	for i := range uploads {
		sent.Go(func() {
			req := request(fmt.Sprint(i))
			req.Size = imageSize
			if i%2 == 0 {
				answers[i] = f.broadcastOf(req, body)
				return
			}
			rec, err := f.nodes[1].Receive(t.Context(), req, body(1))
			answers[i] = []answer{{1, rec, err}}
		})
	}
	sent.Wait()

	limit := int64(len(f.nodes)*staging + otherMax)
	t.Logf("images of %d bytes, %d at once: memory grew by %d bytes", imageSize, uploads, memory.growth())
	if grown := memory.growth(); grown > limit {
		t.Errorf("memory grew by %d bytes, want at most %d", grown, limit)
	}
	for _, upload := range answers {
		f.expectCopies(f.expectRecord(upload), digest.Sum(nil))
	}
}

// noise returns a body that is nowhere in memory.
func noise(size int64) io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{}), size) }

// memory is the resident memory of this process.
type memory struct {
	before int64
	peak   atomic.Int64
}

func newMemory() *memory {
	debug.FreeOSMemory() // what earlier tests have left
	rss, _ := hostinfo.Process()
	return &memory{before: rss}
}

// growth returns by how much the memory was larger than in the beginning, at most, when it was sampled.
func (m *memory) growth() int64 { return m.peak.Load() - m.before }

// sampledBy returns a body that samples the memory at each read.
func (m *memory) sampledBy(body io.Reader) io.Reader {
	return readFunc(func(b []byte) (int, error) {
		rss, _ := hostinfo.Process()
		for p := m.peak.Load(); rss > p && !m.peak.CompareAndSwap(p, rss); p = m.peak.Load() {
		}
		return body.Read(b)
	})
}

type readFunc func([]byte) (int, error)

func (r readFunc) Read(b []byte) (int, error) { return r(b) }
