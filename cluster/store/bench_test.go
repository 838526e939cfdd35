package store

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// BenchmarkCommit stores files of 13 MiB in segments of 1 MiB, one and eight at once, and reports the CPU
// time of this process for each. Files are kept until the end, as on a node under load: only then does the
// page cache show its cost. Figures repeat from -benchtime 200x on.
func BenchmarkCommit(b *testing.B) {
	for _, mode := range []string{"direct", "buffered"} {
		for _, parallel := range []int{1, 8} {
			b.Run(fmt.Sprintf("%s/%d", mode, parallel), func(b *testing.B) {
				s := openTest(b, b.TempDir(), Options{Buffered: mode == "buffered"})
				if mode == "direct" && !s.direct {
					b.Skip("no direct I/O here")
				}
				benchmarkCommit(b, s, parallel, 13<<20)
			})
		}
	}
}

// BenchmarkCommitSmall is BenchmarkCommit with files of 10 KB, as of small images.
func BenchmarkCommitSmall(b *testing.B) {
	for _, parallel := range []int{1, 16} {
		b.Run(fmt.Sprint(parallel), func(b *testing.B) {
			benchmarkCommit(b, openTest(b, b.TempDir(), Options{}), parallel, 10_240)
		})
	}
}

func benchmarkCommit(b *testing.B, s *Store, parallel, size int) {
	segment := noise(1, 1<<20+28) // a ciphertext segment is never aligned
	b.SetBytes(int64(size))
	before := cpuTime()
	b.ResetTimer()
	var wg sync.WaitGroup
	var next atomic.Int64
	for range parallel {
		wg.Go(func() {
			for next.Add(1) <= int64(b.N) {
				if err := writeSegments(s, segment, size); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N)/1e6, "cpu-ms/op")
}

func writeSegments(s *Store, segment []byte, size int) error {
	w, err := s.Create(newFile(), int64(size))
	if err != nil {
		return err
	}
	defer w.Abort()
	for left := size; left > 0; left -= len(segment) {
		if _, err := w.Write(segment[:min(left, len(segment))]); err != nil {
			return err
		}
	}
	return w.Commit()
}

// cpuTime returns the user and system time that the process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
