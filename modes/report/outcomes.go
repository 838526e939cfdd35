package report

import (
	"cmp"
	"iter"
	"slices"

	"imgcluster/modes/runlog"
)

// From when a latency counts: from when the operation was due, or from when it was sent.
var (
	fromDue  = (*runlog.Outcome).TookS
	fromSent = func(o *runlog.Outcome) float64 { return o.LatencyS }
)

// ofMeasured returns a time of each operation that succeeded and is timed, in the order of the log.
func ofMeasured(outcomes iter.Seq[*runlog.Outcome], seconds func(*runlog.Outcome) float64) (list []float64) {
	for o := range outcomes {
		if o.Measured() {
			list = append(list, seconds(o))
		}
	}
	return list
}

// tally has the figures of the operations of one kind.
type tally struct {
	attempted, succeeded int
	bytes                int64          // of those that succeeded
	reasons              map[string]int // of those that failed
	latency              Latency
	serviceLatency       *Latency // nil in a closed loop
}

// newTally counts operations, of which there are n.
func newTally(outcomes iter.Seq[*runlog.Outcome], n int) tally {
	t := tally{attempted: n, reasons: map[string]int{}}
	took := make([]float64, 0, n)
	open := false
	for o := range outcomes {
		open = open || o.Scheduled
		if !o.OK {
			t.reasons[o.Reason]++
			continue
		}
		t.succeeded++
		t.bytes += o.Bytes
		if o.Measured() {
			took = append(took, fromDue(o))
		}
	}
	slices.Sort(took)
	t.latency = newLatency(took)
	if open {
		took = ofMeasured(outcomes, fromSent)
		slices.Sort(took)
		t.serviceLatency = new(newLatency(took))
	}
	return t
}

// failures lists the reasons of failures, the most frequent first.
func (t tally) failures() []Failure {
	list := []Failure{}
	for reason, n := range t.reasons {
		list = append(list, Failure{Error: cmp.Or(reason, "no reason given"), Uploads: n})
	}
	slices.SortFunc(list, func(a, b Failure) int {
		return cmp.Or(cmp.Compare(b.Uploads, a.Uploads), cmp.Compare(a.Error, b.Error))
	})
	return list
}
