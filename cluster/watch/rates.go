package watch

import (
	"math"
	"sync"
	"time"
)

// Rates counts operations of one kind and how long they take. It is safe for concurrent use.
type Rates struct {
	mu       sync.Mutex
	count    int64
	bytes    int64
	since    time.Time
	buckets  [buckets]int64 // of the time since then, by duration
	p50, p99 float64        // of the time before, in seconds
}

// Durations are kept in buckets that each begin at bucketRatio times the one before; the first holds all
// below bucketFirst, the last all above bucketFirst*bucketRatio^(buckets-2), five minutes.
const (
	buckets     = 104
	bucketFirst = time.Millisecond / 8
	bucketRatio = 1.155
)

// Add counts an operation of so many bytes that took so long.
func (r *Rates) Add(bytes int64, took time.Duration) {
	b := 0
	if took >= bucketFirst {
		b = 1 + int(math.Log(float64(took)/float64(bucketFirst))/math.Log(bucketRatio))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	r.bytes += bytes
	r.buckets[min(b, buckets-1)]++
}

// Totals returns the operations so far and their bytes.
func (r *Rates) Totals() (count, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count, r.bytes
}

// Quantiles returns the median and the 99th percentile of a time of SampleEvery that has lately ended, in
// seconds, each at most 8 % off; 0 when there were no operations in it. It is to be called that often.
func (r *Rates) Quantiles(now time.Time) (p50, p99 float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.since) >= SampleEvery {
		all := int64(0)
		for _, n := range r.buckets {
			all += n
		}
		r.p50, r.p99 = r.quantile(0.5, all), r.quantile(0.99, all)
		clear(r.buckets[:])
		r.since = now
	}
	return r.p50, r.p99
}

// quantile returns the middle of the bucket that has the quantile q of all.
func (r *Rates) quantile(q float64, all int64) float64 {
	if all == 0 {
		return 0
	}
	rank, seen := int64(math.Ceil(q*float64(all))), int64(0)
	for b, n := range r.buckets {
		if seen += n; seen >= rank {
			return bucketFirst.Seconds() * math.Pow(bucketRatio, float64(b)-0.5)
		}
	}
	return 0
}
