package report

import (
	"iter"

	"imgcluster/modes/runlog"
)

// uploads yields what became of the uploads.
func (l log) uploads() iter.Seq[*runlog.Outcome] {
	return func(yield func(*runlog.Outcome) bool) {
		for i := range l.Uploads {
			if !yield(&l.Uploads[i].Outcome) {
				return
			}
		}
	}
}

// uploadsOf yields what became of the uploads of a class.
func (l log) uploadsOf(class string) iter.Seq[*runlog.Outcome] {
	return func(yield func(*runlog.Outcome) bool) {
		for i := range l.Uploads {
			if u := &l.Uploads[i]; u.Class == class && !yield(&u.Outcome) {
				return
			}
		}
	}
}

// reads yields what became of the reads.
func (l log) reads() iter.Seq[*runlog.Outcome] {
	return func(yield func(*runlog.Outcome) bool) {
		for i := range l.Reads {
			if !yield(&l.Reads[i]) {
				return
			}
		}
	}
}

// From when a latency counts: from when the operation was due, or from when it was sent.
var (
	fromDue  = (*runlog.Outcome).TookS
	fromSent = func(o *runlog.Outcome) float64 { return o.LatencyS }
)

// latencies returns those of the operations that succeeded and are timed, in the order of the log.
func latencies(outcomes iter.Seq[*runlog.Outcome], from func(*runlog.Outcome) float64) (list []float64) {
	for o := range outcomes {
		if o.Measured() {
			list = append(list, from(o))
		}
	}
	return list
}
