package result

import (
	"cmp"
	"math"
	"slices"
)

// timeBuckets bounds the points of a line over time, so that a page stays small however long the run.
const timeBuckets = 240

// Where there are few uploads, a stretch is to have some of them, so that the line says more than noise.
const (
	stretchUploads = 5
	stretchesMin   = 30
)

// timeline is a run cut into stretches of one length.
type timeline struct {
	width   float64 // seconds
	from    float64 // where the warm-up ends
	to      float64 // where the run does
	uploads []stretch
	reads   []stretch
}

// stretch is what ended in one stretch of time.
type stretch struct {
	done, failed int
	bytes        int64
	p50, p99     float64 // of those done; NaN without one
}

// operation is an upload or a read.
type operation interface {
	finish() float64
	took() float64
	measured() bool
	outcome() (ok bool, bytes int64)
}

func (u *upload) outcome() (bool, int64) { return u.ok, u.bytes }
func (o *readOp) outcome() (bool, int64) { return o.ok, o.bytes }

// newTimeline cuts a run of that length.
func newTimeline(l *Log, from, elapsed float64) timeline {
	t := timeline{from: from, to: elapsed, width: stretchWidth(elapsed, min(max(len(l.uploads)/stretchUploads, stretchesMin), timeBuckets))}
	n := int(elapsed/t.width) + 1
	t.uploads = cutUp(l.uploads, t.width, n)
	if len(l.reads) > 0 {
		t.reads = cutUp(l.reads, t.width, n)
	}
	return t
}

// stretchLeast is the part of a stretch from which it tells a rate: the first and last may be shorter than the others.
const stretchLeast = 0.3

// span returns from where to where stretch i goes, and false when too little of it is of the measured time.
func (t *timeline) span(i int) (from, to float64, ok bool) {
	from, to = max(float64(i)*t.width, t.from), min(float64(i+1)*t.width, t.to)
	return from, to, to-from >= stretchLeast*t.width
}

// cutUp sorts operations into stretches by when they ended.
func cutUp[T any, P interface {
	*T
	operation
}](ops []T, width float64, n int,
) []stretch {
	list := make([]stretch, n)
	latency := make([][]float64, n)
	for i := range ops {
		op := P(&ops[i])
		at := min(int(op.finish()/width), n-1)
		ok, bytes := op.outcome()
		if !ok {
			list[at].failed++
			continue
		}
		list[at].done++
		list[at].bytes += bytes
		if op.measured() {
			latency[at] = append(latency[at], op.took())
		}
	}
	for i, took := range latency {
		list[i].p50, list[i].p99 = math.NaN(), math.NaN()
		if len(took) > 0 {
			slices.Sort(took)
			list[i].p50, list[i].p99 = quantile(took, 0.5), quantile(took, 0.99)
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
func (l *Log) pace(finished []float64, parts int) []point {
	ramp := min(max(l.Run.Concurrency, 1), len(finished)/3)
	if len(finished)-2*ramp < 2 || parts < 1 {
		return nil
	}
	finished = finished[ramp-1 : len(finished)-ramp]
	held, start := l.held(), finished[0]
	end := underLoad(held, start, finished[len(finished)-1])
	if end < ratioMin {
		return nil
	}
	width := end / float64(parts)
	points := make([]point, parts)
	for i := range points {
		points[i].t = (float64(i) + 0.5) * width
	}
	for _, f := range finished[1:] {
		points[min(int(underLoad(held, start, f)/width), parts-1)].v += 1 / width
	}
	return points
}

// finished returns when the successful uploads ended, ascending, as far as the log says.
func (l *Log) finished() []float64 {
	list := make([]float64, 0, len(l.uploads))
	for i := range l.uploads {
		if l.uploads[i].measured() {
			list = append(list, l.uploads[i].finish())
		}
	}
	slices.Sort(list)
	return list
}

// underLoad returns how much of the time from one moment to another uploads could begin.
func underLoad(held []span, from, to float64) float64 {
	left := to - from
	next, _ := slices.BinarySearchFunc(held, from, func(s span, t float64) int { return cmp.Compare(s.to, t) })
	for ; next < len(held) && held[next].from < to; next++ {
		left -= max(0, min(held[next].to, to)-max(held[next].from, from))
	}
	return max(left, 0)
}
