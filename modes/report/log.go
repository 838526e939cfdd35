package report

import (
	"iter"
	"slices"

	"imgcluster/modes/runlog"
)

// log is the log of a run, with what the figures need of it.
type log struct{ *runlog.Log }

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

// hasNode reports whether a node is one of the run's.
func (l log) hasNode(id int) bool {
	_, ok := slices.BinarySearch(l.NodeIDs(), id)
	return ok
}

// unnamed reports whether the log does not name the run's nodes: one that owns nothing would not be missed.
func (l log) unnamed() bool { return len(l.Run.Nodes) == 0 }

// runNodes returns the shares of the run's nodes only.
func (l log) runNodes(nodes []NodeShare) []NodeShare {
	return slices.DeleteFunc(slices.Clone(nodes), func(n NodeShare) bool { return !l.hasNode(n.ID) })
}

// resumed counts how often the run was resumed after it had been interrupted.
func (l log) resumed() int64 { return l.CountEvents(runlog.EventResumed) }

// waited adds up the time in which no upload could start.
func (l log) waited() (sum float64) {
	end := l.LastS()
	for _, held := range l.Held() {
		sum += max(0, min(held.ToS, end)-held.FromS)
	}
	return sum
}

// unowned counts the successful uploads whose owner is not in the log.
func (l log) unowned() int {
	return l.succeededThat(func(u *runlog.UploadOutcome) bool { return u.Owner == 0 })
}

// untimed counts the successful uploads whose times are not in the log.
func (l log) untimed() int {
	return l.succeededThat(func(u *runlog.UploadOutcome) bool { return !u.Timed })
}

// unsized counts the successful uploads whose sizes are not in the log.
func (l log) unsized() int {
	return l.succeededThat(func(u *runlog.UploadOutcome) bool { return u.Bytes == 0 })
}

// succeededThat counts the successful uploads for which are returns true.
func (l log) succeededThat(are func(*runlog.UploadOutcome) bool) (n int) {
	for i := range l.Uploads {
		if u := &l.Uploads[i]; u.OK && are(u) {
			n++
		}
	}
	return n
}
