package report

import (
	"cmp"
	"iter"
	"math"
	"slices"

	"imgcluster/modes/runlog"
)

// pointsMax bounds the points of a line over time, so that a page stays small however long the run.
const pointsMax = 240

// Of few uploads, a bucket has several, so that the line shows more than noise.
const (
	bucketUploads = 5
	bucketsMin    = 30
)

// Timeline is a run cut into buckets of one length.
type Timeline struct {
	WidthS  float64 // of a bucket
	FromS   float64 // where the warm-up ends
	ToS     float64 // where the run ends
	Uploads []Bucket
	Reads   []Bucket
}

// Bucket counts the operations that ended in one interval of time.
type Bucket struct {
	Done, Failed int
	Bytes        int64
	P50S, P99S   float64 // latency of those done; NaN without one
}

// newTimeline cuts up a run that lasted elapsed seconds.
func newTimeline(l log, from, elapsed float64) Timeline {
	t := Timeline{
		FromS:  from,
		ToS:    elapsed,
		WidthS: bucketWidth(elapsed, min(max(len(l.Uploads)/bucketUploads, bucketsMin), pointsMax)),
	}
	n := int(elapsed/t.WidthS) + 1
	t.Uploads = buckets(l.uploads(), t.WidthS, n)
	if len(l.Reads) > 0 {
		t.Reads = buckets(l.reads(), t.WidthS, n)
	}
	return t
}

// BucketPartMin is the least part of a bucket that has a rate: the first and the last may be shorter.
const BucketPartMin = 0.3

// Bounds returns the bounds of bucket i in the measured time, and false when too little of it is left.
func (t *Timeline) Bounds(i int) (from, to float64, ok bool) {
	from = max(float64(i)*t.WidthS, t.FromS)
	to = min(float64(i+1)*t.WidthS, t.ToS)
	return from, to, to-from >= BucketPartMin*t.WidthS
}

// buckets counts operations in n buckets by when they ended.
func buckets(outcomes iter.Seq[*runlog.Outcome], width float64, n int) []Bucket {
	list := make([]Bucket, n)
	latency := make([][]float64, n)
	for o := range outcomes {
		part := min(int(o.FinishS()/width), n-1)
		if !o.OK {
			list[part].Failed++
			continue
		}
		list[part].Done++
		list[part].Bytes += o.Bytes
		if o.Measured() {
			latency[part] = append(latency[part], o.TookS())
		}
	}
	for i, took := range latency {
		list[i].P50S, list[i].P99S = math.NaN(), math.NaN()
		if len(took) > 0 {
			slices.Sort(took)
			list[i].P50S, list[i].P99S = quantile(took, 0.5), quantile(took, 0.99)
		}
	}
	return list
}

// bucketWidth returns the smallest round width that cuts elapsed into fewer than most buckets.
func bucketWidth(elapsed float64, most int) float64 {
	least := max(elapsed/float64(most-1), 0.01)
	unit := math.Pow(10, math.Floor(math.Log10(least)))
	for _, m := range []float64{1, 2, 5, 10} {
		if m*unit >= least {
			return m * unit
		}
	}
	return 10 * unit
}

// pace returns the uploads a second over time, each value from one of parts equal parts of the time in which
// uploads could start. It leaves out the first and the last completions, as many as uploads run at once,
// which are ramp and tail. finished is ascending.
func (l log) pace(finished []float64, parts int) []Point {
	ramp := min(max(l.Run.Concurrency, 1), len(finished)/3)
	if len(finished)-2*ramp < 2 || parts < 1 {
		return nil
	}
	finished = finished[ramp-1 : len(finished)-ramp]
	held, start := l.Held(), finished[0]
	end := underLoad(held, start, finished[len(finished)-1])
	if end < ratioMin {
		return nil
	}
	width := end / float64(parts)
	points := make([]Point, parts)
	for i := range points {
		points[i].T = (float64(i) + 0.5) * width
	}
	for _, f := range finished[1:] {
		points[min(int(underLoad(held, start, f)/width), parts-1)].V += 1 / width
	}
	return points
}

// finished returns when the successful uploads ended, ascending, as far as it is in the log.
func (l log) finished() []float64 {
	list := ofMeasured(l.uploads(), (*runlog.Outcome).FinishS)
	slices.Sort(list)
	return list
}

// underLoad returns for how much of the time between two points in time uploads could start.
func underLoad(held []runlog.Interval, from, to float64) float64 {
	seconds := to - from
	next, _ := slices.BinarySearchFunc(held, from, func(held runlog.Interval, t float64) int {
		return cmp.Compare(held.ToS, t)
	})
	for ; next < len(held) && held[next].FromS < to; next++ {
		seconds -= max(0, min(held[next].ToS, to)-max(held[next].FromS, from))
	}
	return max(seconds, 0)
}
