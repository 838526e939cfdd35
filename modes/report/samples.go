package report

import (
	"fmt"
	"iter"

	"imgcluster/cluster/sample"
	"imgcluster/modes/runlog"
)

// observation is one sample of a process, with its figures in the order of their table.
type observation struct {
	node    int // or clientID
	atS     float64
	up      bool
	figures sample.Figures
	values  []float64
}

// clientID stands for the client where processes are told apart by node; nodes count from 1.
const clientID = 0

// processName returns what a process is called, by node or clientID.
func processName(id int) string {
	if id == clientID {
		return "client"
	}
	return fmt.Sprintf("node %d", id)
}

// observations yields the samples of the nodes and then those of the client; of each process in order of
// time.
func (l log) observations() iter.Seq[observation] {
	return func(yield func(observation) bool) {
		for i := range l.Nodes {
			s := &l.Nodes[i]
			if !yield(observation{s.ID, s.TS, s.Up, sample.Nodes, sample.Nodes.Values(&s.Node)}) {
				return
			}
		}
		for i := range l.Client {
			s := &l.Client[i]
			if !yield(observation{clientID, s.TS, true, sample.Clients, sample.Clients.Values(&s.Client)}) {
				return
			}
		}
	}
}

// restarted reports whether o is of another process than the sample before: a counter fell.
func (o *observation) restarted(before *observation) bool {
	for i, f := range o.figures {
		if f.Counter && o.values[i] < before.values[i] {
			return true
		}
	}
	return false
}

// rateSecondsMin is the shortest time between samples that gives a rate: a sample that came late is stamped
// when it came, so that what grew in a second would count for the milliseconds up to the next one.
const rateSecondsMin = 0.5

// rate returns how fast a counter grew, in the scale in which it is shown.
func rate(f sample.Figure, grown, seconds float64) float64 {
	if f.Report.Summary == sample.BusyTime {
		return min(100, 100*grown/seconds)
	}
	return grown / seconds
}

// summary makes one number of the samples of a figure, as its table asks.
type summary struct {
	figure  sample.Figure
	value   float64
	seconds float64 // that value is of, where it is a sum over time
}

// step is the time from one sample of a process to the next.
type step struct {
	seconds  float64
	measured bool // after the warm-up
	up       bool // at both ends
}

// add takes the next value of the figure into account.
func (s *summary) add(before, now float64, over step) {
	switch s.figure.Report.Summary {
	case sample.Rate, sample.BusyTime:
		if over.measured && over.up && before != runlog.NotSampled && now >= before {
			s.value += now - before
			s.seconds += over.seconds
		}
	case sample.Mean:
		if over.measured && over.up && before != runlog.NotSampled {
			s.value += before * over.seconds
			s.seconds += over.seconds
		}
	case sample.HighestMeasured:
		if over.measured {
			s.value = max(s.value, now)
		}
	case sample.Highest:
		s.value = max(s.value, now)
	case sample.Lowest:
		if now > 0 && (s.value == 0 || now < s.value) {
			s.value = now
		}
	}
}

// result returns the number; 0 when there are too few samples, or too close together.
func (s *summary) result() float64 {
	switch s.figure.Report.Summary {
	case sample.Rate, sample.BusyTime:
		if s.seconds < rateSecondsMin {
			return 0
		}
		return rate(s.figure, s.value, s.seconds)
	case sample.Mean:
		return ratio(s.value, s.seconds)
	}
	return s.value
}
