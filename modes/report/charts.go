package report

import (
	"fmt"
	"math"
	"slices"

	"imgcluster/modes/runlog"
)

// Charts is what a page draws of a run: few enough points for any length of run.
type Charts struct {
	Time      Timeline
	Processes []*ProcessLines // the nodes by id, the client last
	Latency   []Distribution
}

// Gauge is something that is sampled.
type Gauge int

// What is sampled.
const (
	GaugeMemory Gauge = iota
	GaugeCores
	GaugeIn
	GaugeOut
	GaugeWritten
	GaugeRead
	GaugeBusy // of the disk, in percent
	GaugeFree
	GaugeStaging
	GaugeFlight
	GaugeLate
	gauges
)

// ProcessLines are the samples of one process over time, by Gauge. A point that is no number is a gap.
type ProcessLines struct {
	Name string
	Of   [gauges][]Point
}

// Distribution is one: for each share of all values, what they do not exceed.
type Distribution struct {
	Name   string
	Points []Point // T is the number of nines of the share, such as 2 for 99 %
}

func newCharts(l log, r *Report) Charts {
	c := Charts{Time: newTimeline(l, r.ElapsedS-r.MeasuredS, r.ElapsedS)}
	c.Processes = l.gauges(l.NodeIDs())
	took := func(name string, n int, latency func(int) (float64, bool)) {
		v := make([]float64, 0, n)
		for i := range n {
			if s, ok := latency(i); ok {
				v = append(v, s)
			}
		}
		if len(v) > 1 {
			c.Latency = append(c.Latency, distribution(name, v))
		}
	}
	suffix := ""
	if r.ServiceLatencyS != nil {
		suffix = ", from when due"
	}
	took("uploads"+suffix, len(l.Uploads),
		func(i int) (float64, bool) { return l.Uploads[i].TookS(), l.Uploads[i].Measured() })
	if r.ServiceLatencyS != nil {
		took("uploads, from when sent", len(l.Uploads),
			func(i int) (float64, bool) { return l.Uploads[i].LatencyS, l.Uploads[i].Measured() })
	}
	took("reads"+suffix, len(l.Reads), func(i int) (float64, bool) {
		return l.Reads[i].TookS(),
			l.Reads[i].Measured()
	})
	return c
}

// nineSteps are the points of a distribution for each nine.
const nineSteps = 16

func distribution(name string, v []float64) Distribution {
	slices.Sort(v)
	q := Distribution{Name: name}
	last := int(math.Ceil(math.Log10(float64(len(v))) * nineSteps))
	for i := range last + 1 {
		nines := float64(i) / nineSteps
		q.Points = append(q.Points, Point{nines, quantile(v, 1-math.Pow(10, -nines))})
	}
	return q
}

// gauges cuts the samples up by process. While a node is down there is a gap, and no rate where a process is new.
func (l log) gauges(members []int) []*ProcessLines {
	at := map[int]*ProcessLines{}
	var list []*ProcessLines
	for _, id := range members {
		at[id] = &ProcessLines{Name: fmt.Sprintf("node %d", id)}
		list = append(list, at[id])
	}
	spans := map[int]*sampled[runlog.NodeSample]{}
	for _, s := range l.Nodes {
		if g := at[s.ID]; g != nil {
			if spans[s.ID] == nil {
				spans[s.ID] = &sampled[runlog.NodeSample]{}
			}
			g.addNode(spans[s.ID], s)
		}
	}
	client := &ProcessLines{Name: "client"}
	var span sampled[runlog.ClientSample]
	for _, s := range l.Client {
		client.addClient(&span, s)
	}
	for _, g := range append(list, client) {
		for i := range g.Of {
			g.Of[i] = thinLine(g.Of[i])
		}
	}
	return append(list, client)
}

// rateSecondsMin is the shortest time between samples that tells a rate: a sample that came late is stamped
// when it came, so that what grew in a second would count for the milliseconds up to the next one.
const rateSecondsMin = 0.5

// sampled is the samples of a process between which the latest rates were taken.
type sampled[S any] struct {
	from, to S
	any      bool // to is there
	drawn    bool // from is too, and has its rates
}

// next goes on to a sample that comes time after the last one, and reports whether there is a rate from s.from
// to it. Where the time is too short, that rate takes the place of the one before.
func (s *sampled[S]) next(g *ProcessLines, sample S, time float64) bool {
	short := time < rateSecondsMin
	switch {
	case !s.any:
		s.to, s.any = sample, true
		return false
	case short && !s.drawn:
		return false // the next one will do
	case short:
		g.dropRates()
	default:
		s.from = s.to
	}
	s.to, s.drawn = sample, true
	return true
}

func (g *ProcessLines) addNode(b *sampled[runlog.NodeSample], s runlog.NodeSample) {
	if !s.Up {
		for i := range g.Of {
			g.Of[i] = append(g.Of[i], Point{s.TS, math.NaN()})
		}
		*b = sampled[runlog.NodeSample]{}
		return
	}
	g.add(GaugeMemory, s.TS, orGap(s.RSSBytes))
	g.add(GaugeFree, s.TS, orGap(s.DiskFreeBytes))
	g.add(GaugeStaging, s.TS, float64(s.StagingBytes))
	if s.CPUS < b.to.CPUS { // a new process
		*b = sampled[runlog.NodeSample]{}
	}
	if !b.next(g, s, s.TS-b.to.TS) {
		return
	}
	before, time := b.from, s.TS-b.from.TS
	rate := func(of Gauge, before, now float64) { g.add(of, s.TS, grown(before, now)/time) }
	rate(GaugeCores, before.CPUS, s.CPUS)
	rate(GaugeIn, float64(before.NetRxBytes), float64(s.NetRxBytes))
	rate(GaugeOut, float64(before.NetTxBytes), float64(s.NetTxBytes))
	rate(GaugeWritten, float64(before.DiskWrittenBytes), float64(s.DiskWrittenBytes))
	rate(GaugeRead, float64(before.DiskReadBytes), float64(s.DiskReadBytes))
	g.add(GaugeBusy, s.TS, min(100, 100*grown(before.DiskBusyS, s.DiskBusyS)/time))
}

// orGap is no number where a figure is not known.
func orGap(v int64) float64 {
	if v == 0 {
		return math.NaN()
	}
	return float64(v)
}

// grown is by how much a counter grew, 0 where the log does not tell or it began again.
func grown(before, now float64) float64 {
	if before == runlog.NotTold {
		return 0
	}
	return max(0, now-before)
}

func (g *ProcessLines) addClient(b *sampled[runlog.ClientSample], s runlog.ClientSample) {
	g.add(GaugeMemory, s.TS, orGap(s.RSSBytes))
	g.add(GaugeFlight, s.TS, float64(max(0, s.InFlight)))
	g.add(GaugeLate, s.TS, s.LateS)
	if s.CPUS < b.to.CPUS { // resumed
		*b = sampled[runlog.ClientSample]{}
	}
	if !b.next(g, s, s.TS-b.to.TS) {
		return
	}
	before, time := b.from, s.TS-b.from.TS
	g.add(GaugeCores, s.TS, grown(before.CPUS, s.CPUS)/time)
	g.add(GaugeIn, s.TS, grown(float64(before.ReadBytes), float64(s.ReadBytes))/time)
	g.add(GaugeOut, s.TS, grown(float64(before.SentBytes), float64(s.SentBytes))/time)
}

// dropRates takes back the latest rates.
func (g *ProcessLines) dropRates() {
	for _, of := range []Gauge{GaugeCores, GaugeIn, GaugeOut, GaugeWritten, GaugeRead, GaugeBusy} {
		if line := g.Of[of]; len(line) > 0 {
			g.Of[of] = line[:len(line)-1]
		}
	}
}

func (g *ProcessLines) add(of Gauge, t, v float64) { g.Of[of] = append(g.Of[of], Point{t, v}) }

// thinLine puts neighbours together, gaps left out where there is anything else, until a chart can take
// them. A line that is 0 all along says nothing, and comes back empty.
func thinLine(line []Point) []Point {
	if !slices.ContainsFunc(line, func(p Point) bool { return p.V > 0 }) {
		return nil
	}
	group := (len(line) + timeBuckets - 1) / timeBuckets
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
