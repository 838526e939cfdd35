package report

import (
	"cmp"
	"math"
	"slices"

	"imgcluster/modes/runlog"
)

// timeBuckets bounds the points of a line over time, so that a page stays small however long the run.
const timeBuckets = 240

// Where there are few uploads, a stretch is to have some of them, so that the line says more than noise.
const (
	stretchUploads = 5
	stretchesMin   = 30
)

// Timeline is a run cut into stretches of one length.
type Timeline struct {
	WidthS  float64 // of a stretch
	FromS   float64 // where the warm-up ends
	ToS     float64 // where the run does
	Uploads []Stretch
	Reads   []Stretch
}

// Stretch is what ended in one stretch of time.
type Stretch struct {
	Done, Failed int
	Bytes        int64
	P50S, P99S   float64 // latency of those done; NaN without one
}

// newTimeline cuts a run of that length.
func newTimeline(l log, from, elapsed float64) Timeline {
	t := Timeline{
		FromS: from, ToS: elapsed,
		WidthS: stretchWidth(elapsed, min(max(len(l.Uploads)/stretchUploads, stretchesMin), timeBuckets)),
	}
	n := int(elapsed/t.WidthS) + 1
	t.Uploads = cutUp(len(l.Uploads), func(i int) *runlog.Outcome { return &l.Uploads[i].Outcome }, t.WidthS,
		n)
	if len(l.Reads) > 0 {
		t.Reads = cutUp(len(l.Reads), func(i int) *runlog.Outcome { return &l.Reads[i] }, t.WidthS, n)
	}
	return t
}

// StretchLeast is the part of a stretch from which it tells a rate: the first and last may be shorter than
// the others.
const StretchLeast = 0.3

// Bounds returns from where to where stretch i goes, and false when too little of it is of the measured time.
func (t *Timeline) Bounds(i int) (from, to float64, ok bool) {
	from, to = max(float64(i)*t.WidthS, t.FromS), min(float64(i+1)*t.WidthS, t.ToS)
	return from, to, to-from >= StretchLeast*t.WidthS
}

// cutUp sorts operations into n stretches by when they ended.
func cutUp(operations int, at func(int) *runlog.Outcome, width float64, n int) []Stretch {
	list := make([]Stretch, n)
	latency := make([][]float64, n)
	for i := range operations {
		o := at(i)
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

// stretchWidth returns the shortest round width that cuts elapsed into fewer than most stretches.
func stretchWidth(elapsed float64, most int) float64 {
	least := max(elapsed/float64(most-1), 0.01)
	unit := math.Pow(10, math.Floor(math.Log10(least)))
	for _, m := range []float64{1, 2, 5, 10} {
		if m*unit >= least {
			return m * unit
		}
	}
	return 10 * unit
}

// pace returns the uploads a second over time, each value from one of parts equal stretches of the
// time in which uploads could begin. The first and last completions, as many as uploads run at once,
// are ramp and tail and left out. finished is ascending.
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

// finished returns when the successful uploads ended, ascending, as far as the log says.
func (l log) finished() []float64 {
	list := make([]float64, 0, len(l.Uploads))
	for i := range l.Uploads {
		if l.Uploads[i].Measured() {
			list = append(list, l.Uploads[i].FinishS())
		}
	}
	slices.Sort(list)
	return list
}

// underLoad returns how much of the time from one moment to another uploads could begin.
func underLoad(held []runlog.Interval, from, to float64) float64 {
	left := to - from
	next, _ := slices.BinarySearchFunc(held, from,
		func(s runlog.Interval, t float64) int { return cmp.Compare(s.ToS, t) })
	for ; next < len(held) && held[next].FromS < to; next++ {
		left -= max(0, min(held[next].ToS, to)-max(held[next].FromS, from))
	}
	return max(left, 0)
}
