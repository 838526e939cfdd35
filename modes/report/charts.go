package report

import (
	"math"
	"slices"

	"imgcluster/cluster/sample"
	"imgcluster/modes/runlog"
)

// Charts is what a page draws of a run: few enough points for any length of run.
type Charts struct {
	Time      Timeline
	Processes []*ProcessLines // the nodes by id, the client last
	Latency   []Distribution
}

// ProcessLines are the samples of one process over time, by the name of the figure, for figures that have a
// chart. Counters are drawn as their rates. A point that is no number is a gap.
type ProcessLines struct {
	Name string
	Of   map[string][]Point
}

// Distribution is one: for each share of all values, what they do not exceed.
type Distribution struct {
	Name   string
	Points []Point // T is the number of nines of the share, such as 2 for 99 %
}

func newCharts(l log, r *Report) Charts {
	c := Charts{
		Time:      newTimeline(l, r.ElapsedS-r.MeasuredS, r.ElapsedS),
		Processes: l.processLines(),
	}
	due := ""
	if r.ServiceLatencyS != nil {
		due = ", from when due"
	}
	c.distribute("uploads"+due, ofMeasured(l.uploads(), fromDue))
	if r.ServiceLatencyS != nil {
		c.distribute("uploads, from when sent", ofMeasured(l.uploads(), fromSent))
	}
	c.distribute("reads"+due, ofMeasured(l.reads(), fromDue))
	return c
}

// nineSteps are the points of a distribution for each nine.
const nineSteps = 16

// distribute adds a distribution, when there is more than one value.
func (c *Charts) distribute(name string, values []float64) {
	if len(values) < 2 {
		return
	}
	slices.Sort(values)
	d := Distribution{Name: name}
	last := int(math.Ceil(math.Log10(float64(len(values))) * nineSteps))
	for i := range last + 1 {
		nines := float64(i) / nineSteps
		d.Points = append(d.Points, Point{nines, quantile(values, 1-math.Pow(10, -nines))})
	}
	c.Latency = append(c.Latency, d)
}

// processLines makes the lines of the run's nodes and of the client.
func (l log) processLines() (list []*ProcessLines) {
	tracers := map[int]*tracer{}
	for o := range l.observations() {
		if tracers[o.node] == nil {
			tracers[o.node] = &tracer{figures: o.figures, lines: make([][]Point, len(o.figures))}
		}
		tracers[o.node].add(&o)
	}
	for _, id := range append(slices.Clone(l.NodeIDs()), clientID) {
		p := &ProcessLines{Name: processName(id), Of: map[string][]Point{}}
		if t := tracers[id]; t != nil {
			for i, f := range t.figures {
				p.Of[f.Name] = thinLine(t.lines[i])
			}
		}
		list = append(list, p)
	}
	return list
}

// tracer makes the lines of one process. While the process is down there is a gap, and no rate where it is
// new.
type tracer struct {
	figures sample.Figures
	lines   [][]Point // by figure
	// the samples between which the latest rates were taken; from is nil before the first rates, and both are
	// where the process is new
	from, to *observation
}

func (t *tracer) add(o *observation) {
	if !o.up {
		t.from, t.to = nil, nil
		t.each(func(i int, _ sample.Figure) { t.draw(i, o.atS, math.NaN()) })
		return
	}
	t.each(func(i int, f sample.Figure) {
		switch v := o.values[i]; {
		case f.Counter:
		case f.Positive && v == 0:
			t.draw(i, o.atS, math.NaN())
		default:
			t.draw(i, o.atS, max(0, v)) // not NotSampled
		}
	})
	if t.to != nil && o.restarted(t.to) {
		t.from, t.to = nil, nil
	}
	switch {
	case t.to == nil:
		t.to = o
		return
	case o.atS-t.to.atS >= rateSecondsMin:
		t.from = t.to
	case t.from == nil:
		return // so soon after the first sample there is no rate; the next sample will have one
	default:
		t.dropRates() // those up to here take their place
	}
	t.to = o
	t.drawRates()
}

// each calls f with the figures that have a chart.
func (t *tracer) each(f func(i int, figure sample.Figure)) {
	for i, figure := range t.figures {
		if figure.Report.Chart != "" {
			f(i, figure)
		}
	}
}

func (t *tracer) draw(i int, atS, v float64) { t.lines[i] = append(t.lines[i], Point{atS, v}) }

func (t *tracer) drawRates() {
	t.each(func(i int, f sample.Figure) {
		if !f.Counter {
			return
		}
		grown := 0.0
		if t.from.values[i] != runlog.NotSampled {
			grown = t.to.values[i] - t.from.values[i]
		}
		t.draw(i, t.to.atS, rate(f, grown, t.to.atS-t.from.atS))
	})
}

// dropRates takes back the latest rates.
func (t *tracer) dropRates() {
	t.each(func(i int, f sample.Figure) {
		if f.Counter {
			t.lines[i] = t.lines[i][:len(t.lines[i])-1]
		}
	})
}

// thinLine puts neighbours together, gaps left out where there is anything else, until a chart can take
// them. A line that is 0 all along says nothing, and comes back empty.
func thinLine(line []Point) []Point {
	if !slices.ContainsFunc(line, func(p Point) bool { return p.V > 0 }) {
		return nil
	}
	group := (len(line) + pointsMax - 1) / pointsMax
	if group <= 1 {
		return line
	}
	var out []Point
	for part := range slices.Chunk(line, group) {
		known := slices.DeleteFunc(slices.Clone(part), func(p Point) bool { return math.IsNaN(p.V) })
		if len(known) == 0 {
			known = part
		}
		out = append(out, thin(known, 1)...)
	}
	return out
}
