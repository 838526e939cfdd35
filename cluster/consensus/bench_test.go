package consensus

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"imgcluster/cluster/catalog"
)

// latencies runs call from n goroutines, b.N times in all, and reports the quantiles.
func latencies(b *testing.B, n int, call func(i int) error) {
	times := make([]time.Duration, b.N)
	next := make(chan int, b.N)
	for i := range b.N {
		next <- i
	}
	close(next)
	b.ResetTimer()
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for i := range next {
				start := time.Now()
				if err := call(i); err != nil {
					b.Error(err)
				}
				times[i] = time.Since(start)
			}
		})
	}
	all.Wait()
	b.StopTimer()
	slices.Sort(times)
	b.ReportMetric(float64(times[b.N/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(times[b.N*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

// BenchmarkCluster has three nodes of 13 shards in this process, with the default times.
func BenchmarkCluster(b *testing.B) {
	c := newCluster(b, 3, 13, func(o *Options) {
		o.RTT, o.ElectionRTT, o.HeartbeatRTT = 100*time.Millisecond, 5, 1
	})
	c.startAll()
	c.expectBalanced()
	value := make([]byte, 280)
	for i := range value {
		value[i] = 'x'
	}
	for _, n := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("propose/parallel=%d", n), func(b *testing.B) {
			latencies(b, n, func(i int) error {
				_, err := c.nodes[i%3].Propose(context.Background(), uint64(i%13+1),
					fmt.Appendf(nil, "set k%d %s", i%5000, value))
				return err
			})
		})
	}
	get := func(r catalog.Reader) error { _, err := r.Get([]byte("k1")); return err }
	for i, who := range []string{"leader", "follower"} {
		b.Run("read/"+who, func(b *testing.B) { // shard 1 is led by node 1
			latencies(b, 1, func(int) error { return c.nodes[i].Read(context.Background(), 1, get) })
		})
	}
	b.Run("view", func(b *testing.B) {
		latencies(b, 1, func(int) error { return c.nodes[0].View(1, get) })
	})
}
