package report

import (
	"cmp"
	"fmt"
	"slices"

	"imgcluster/cluster/printable"
	"imgcluster/modes/runlog"
)

// Comparison sets a run beside another one.
type Comparison struct {
	Other    string           `json:"other"` // the other log
	Test     string           `json:"test"`  // by which differences are told from noise
	Alpha    float64          `json:"alpha"` // p values below are beyond noise
	Settings []SettingChanged `json:"settings"`
	Figures  []FigureChanged  `json:"figures"`

	OtherIncomplete string `json:"other_incomplete,omitempty"` // what is missing in the other log
	other           charts
	elapsed         float64
}

// SettingChanged is something that was not the same in the two runs.
type SettingChanged struct {
	Name  string `json:"name"`
	This  string `json:"this"`
	Other string `json:"other"`
}

// FigureChanged is a figure of both runs. P is the probability of such a difference, or a larger one, between
// two runs that differ by chance only; nil when the figure has no samples to tell.
type FigureChanged struct {
	Name          string   `json:"name"`
	Unit          string   `json:"unit"`
	This          float64  `json:"this"`
	Other         float64  `json:"other"`
	ChangePercent float64  `json:"change_percent"` // of Other; 0 when that is 0
	P             *float64 `json:"p,omitempty"`
	Outcome       string   `json:"outcome"` // better, worse, noise, or untested
}

// The outcomes of a comparison.
const (
	better   = "better"
	worse    = "worse"
	noise    = "noise"
	untested = "untested"
)

const (
	compareAlpha  = 0.01
	comparePeriod = 1.0 // seconds of throughput that make one sample; less in short runs
	compareParts  = 20  // samples of a short run
	compareTest   = "Mann-Whitney U, two-sided, over the throughput of every second and over the latencies of all operations of a class, " +
		"its variance widened for autocorrelation, p values after Holm (Scandinavian Journal of Statistics 6, 1979); " +
		"not of runs under 2 s or fewer than 10 operations"
	compareSecondsMin = 2.0 // of both runs; in less, the few uploads at once decide on all figures
	compareSamplesMin = 10  // operations in each
)

// Compare sets r, the report of l, beside another log, which has that name.
func (r *Report) Compare(this, that *runlog.Log, name string) {
	l, other := log{this}, log{that}
	o := Compute(that, r.Limits)
	c := &Comparison{Other: name, Test: compareTest, Alpha: compareAlpha, Settings: []SettingChanged{}, other: o.charts, elapsed: o.ElapsedS}
	c.OtherIncomplete = o.Verdict.Incomplete
	c.settings(r.runTable(), o.runTable())
	if c.OtherIncomplete != "" {
		r.Notes = append(r.Notes, fmt.Sprintf("the run of %s is INCOMPLETE: %s", name, c.OtherIncomplete))
	}
	add := func(name, unit string, of func(*Report) float64, lessIsBetter bool, samples func(log) []float64) {
		f := FigureChanged{Name: name, Unit: unit, This: of(r), Other: of(o), Outcome: untested}
		f.ChangePercent = 100 * ratio(f.This-f.Other, f.Other)
		if samples != nil {
			a, b := samples(l), samples(other)
			if min(len(a), len(b)) >= compareSamplesMin && min(r.MeasuredS, o.MeasuredS) >= compareSecondsMin {
				f.P = new(mannWhitney(a, b))
				f.Outcome = map[bool]string{true: better, false: worse}[(median(a) < median(b)) == lessIsBetter]
			}
		}
		c.Figures = append(c.Figures, f)
	}
	add("success", "%", func(r *Report) float64 { return 100 * r.SuccessRate }, false, nil)
	add("throughput", "uploads/s", func(r *Report) float64 { return r.ThroughputPerS }, false, log.paceSamples)
	add("volume", "MB/s", func(r *Report) float64 { return r.ThroughputBytesPerS / 1e6 }, false, nil)
	add("latency p50", "s", func(r *Report) float64 { return r.LatencyS.P50 }, true, func(l log) []float64 { return l.latencies(anyClass) })
	add("latency p99", "s", func(r *Report) float64 { return r.LatencyS.P99 }, true, nil)
	for _, class := range r.Classes {
		if other := o.class(class.Class); other != nil {
			add(fmt.Sprintf("%s p50", cmp.Or(class.Class, "no class")), "s", func(r *Report) float64 { return r.class(class.Class).LatencyS.P50 }, true,
				func(l log) []float64 { return l.latencies(class.Class) })
		}
	}
	if r.Reads != nil && o.Reads != nil {
		add("reads", "reads/s", func(r *Report) float64 { return r.Reads.ThroughputPerS }, false, nil)
		add("reads p50", "s", func(r *Report) float64 { return r.Reads.LatencyS.P50 }, true, log.readLatencies)
	}
	add("balance", "% stddev", func(r *Report) float64 { return r.Balance.StddevPercent }, true, nil)
	add("balance by bytes", "% stddev", func(r *Report) float64 { return r.Balance.BytesStddevPercent }, true, nil)
	add("node memory", "MiB", func(r *Report) float64 {
		return r.worst(func(u Usage) float64 { return float64(u.PeakRSSBytes) / (1 << 20) })
	}, true, nil)
	add("node CPU", "cores", func(r *Report) float64 { return r.worst(func(u Usage) float64 { return u.CPUCores }) }, true, nil)
	c.judge()
	r.Comparison = c
}

// anyClass asks for the uploads of all classes.
const anyClass = "*"

// class returns the class of that name, nil when the run has none.
func (r *Report) class(name string) *Class {
	i := slices.IndexFunc(r.Classes, func(c Class) bool { return c.Class == name })
	if i < 0 {
		return nil
	}
	return &r.Classes[i]
}

// worst returns the largest figure of a node.
func (r *Report) worst(of func(Usage) float64) (most float64) {
	for _, n := range r.Nodes {
		most = max(most, of(n.Usage))
	}
	return most
}

// paceSamples is the throughput of every second.
func (l log) paceSamples() []float64 {
	finished := l.finished()
	if len(finished) < compareSamplesMin {
		return nil
	}
	span := finished[len(finished)-1] - finished[0]
	var v []float64
	for _, p := range l.pace(finished, max(int(span/comparePeriod), compareParts)) {
		v = append(v, p.v)
	}
	return v
}

// latencies are those of the successful uploads of a class, in order.
func (l log) latencies(class string) (v []float64) {
	for i := range l.Uploads {
		if u := &l.Uploads[i]; u.Measured() && (class == anyClass || u.Class == class) {
			v = append(v, u.TookS())
		}
	}
	return v
}

func (l log) readLatencies() (v []float64) {
	for i := range l.Reads {
		if l.Reads[i].Measured() {
			v = append(v, l.Reads[i].TookS())
		}
	}
	return v
}

// judge tells differences from noise: of many tests some would find one by chance, so the p values are
// raised, the smallest most.
func (c *Comparison) judge() {
	var tested []*FigureChanged
	for i := range c.Figures {
		if c.Figures[i].P != nil {
			tested = append(tested, &c.Figures[i])
		}
	}
	slices.SortStableFunc(tested, func(a, b *FigureChanged) int { return cmp.Compare(*a.P, *b.P) })
	least := 0.0
	for i, f := range tested {
		least = max(least, min(1, *f.P*float64(len(tested)-i)))
		*f.P = least
		if least >= c.Alpha {
			f.Outcome = noise
		}
	}
}

// settings lists what differs of how the runs were made.
func (c *Comparison) settings(this, other table) {
	value := func(t table, name string) string {
		for _, row := range t.rows {
			if row[0] == name {
				return row[1]
			}
		}
		return ""
	}
	seen := map[string]bool{"started": true}
	for _, row := range slices.Concat(this.rows, other.rows) {
		name := row[0]
		if a, b := value(this, name), value(other, name); !seen[name] && a != b {
			c.Settings = append(c.Settings, SettingChanged{name, cmp.Or(a, "-"), cmp.Or(b, "-")})
		}
		seen[name] = true
	}
}

func (c *Comparison) figureTable() table {
	t := table{id: "comparison", title: "Compared with " + printable.Text(c.Other), left: 1, head: []string{"", "this", "other", "unit", "change", "p", "outcome"}}
	for _, f := range c.Figures {
		p := "-"
		if f.P != nil {
			p = fmt.Sprintf("%.3f", *f.P)
			if *f.P < 0.0005 {
				p = "<0.001"
			}
		}
		change := "-"
		if f.Other != 0 {
			change = fmt.Sprintf("%+.1f %%", f.ChangePercent)
		}
		t.rows = append(t.rows, []string{f.Name, plain3(f.This), plain3(f.Other), f.Unit, change, p, outcomeWords[f.Outcome]})
	}
	return t
}

// plain3 writes three significant digits.
func plain3(v float64) string { return fmt.Sprintf("%g", rounded(v, 3)) }

var outcomeWords = map[string]string{better: "better", worse: "worse", noise: "within noise", untested: "not tested"}

func (c *Comparison) settingTable() table {
	t := table{id: "settings-compared", title: "Settings that differ", left: 3, head: []string{"setting", "this", "other"}}
	for _, s := range c.Settings {
		t.rows = append(t.rows, []string{s.Name, s.This, s.Other})
	}
	return t
}

// compareCharts draws both runs into one.
func (r *Report) compareCharts(prefix string) (list []chart) {
	c := r.Comparison
	done := func(s stretch) float64 { return float64(s.done) }
	axis := newTimeAxis(max(r.ElapsedS, c.elapsed))
	if one, ok := draw(prefix+"compare-throughput", "Throughput of both", inUnit("uploads/s"), []plotted{
		r.charts.time.rate("this", 0, true, r.charts.time.uploads, done), c.other.time.rate("other", 1, false, c.other.time.uploads, done),
	}, axis); ok {
		list = append(list, one)
	}
	var lines []plotted
	nines := 1.0
	for i, q := range slices.Concat(r.charts.latency[:min(1, len(r.charts.latency))], c.other.latency[:min(1, len(c.other.latency))]) {
		lines = append(lines, plotted{name: []string{"this", "other"}[i], style: i, points: q.points})
		nines = max(nines, q.points[len(q.points)-1].t)
	}
	if one, ok := draw(prefix+"compare-latency", "Latency distribution of both", inSeconds, lines, ninesAxis(nines)); ok {
		list = append(list, one)
	}
	return list
}
