package report

import (
	"cmp"
	"fmt"
	"slices"

	"imgcluster/cluster/sample"
	"imgcluster/modes/runlog"
)

// Comparison sets a run beside another one.
type Comparison struct {
	Other    string           `json:"other"` // the other log
	Test     string           `json:"test"`  // by which differences are told from Noise
	Alpha    float64          `json:"alpha"` // p values below are beyond Noise
	Settings []SettingChanged `json:"settings"`
	Figures  []FigureChanged  `json:"figures"`

	OtherIncomplete string  `json:"other_incomplete,omitempty"` // what is missing in the other log
	OtherCharts     Charts  `json:"-"`
	OtherElapsedS   float64 `json:"-"`
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
	Outcome       string   `json:"outcome"` // Better, Worse, Noise, or Untested
}

// The outcomes of a comparison.
const (
	Better   = "better"
	Worse    = "worse"
	Noise    = "noise"
	Untested = "untested"
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
	c := &Comparison{
		Other: name, Test: compareTest, Alpha: compareAlpha, Settings: []SettingChanged{},
		OtherCharts: o.Charts, OtherElapsedS: o.ElapsedS,
	}
	c.OtherIncomplete = o.Verdict.Incomplete
	c.settings(r.Settings(), o.Settings())
	if c.OtherIncomplete != "" {
		r.Notes = append(r.Notes, fmt.Sprintf("the run of %s is INCOMPLETE: %s", name, c.OtherIncomplete))
	}
	add := func(name, unit string, of func(*Report) float64, lessIsBetter bool, samples func(log) []float64) {
		f := FigureChanged{Name: name, Unit: unit, This: of(r), Other: of(o), Outcome: Untested}
		f.ChangePercent = 100 * ratio(f.This-f.Other, f.Other)
		if samples != nil {
			a, b := samples(l), samples(other)
			if min(len(a), len(b)) >= compareSamplesMin &&
				min(r.MeasuredS, o.MeasuredS) >= compareSecondsMin {
				f.P = new(mannWhitney(a, b))
				f.Outcome = map[bool]string{
					true:  Better,
					false: Worse,
				}[(median(a) < median(b)) == lessIsBetter]
			}
		}
		c.Figures = append(c.Figures, f)
	}
	add("success", "%", func(r *Report) float64 { return 100 * r.SuccessRate }, false, nil)
	add("throughput", "uploads/s", func(r *Report) float64 { return r.ThroughputPerS }, false,
		log.paceSamples)
	add("volume", "MB/s", func(r *Report) float64 { return r.ThroughputBytesPerS / 1e6 }, false, nil)
	add("latency p50", "s", func(r *Report) float64 { return r.LatencyS.P50 }, true,
		func(l log) []float64 { return latencies(l.uploads(), fromDue) })
	add("latency p99", "s", func(r *Report) float64 { return r.LatencyS.P99 }, true, nil)
	for _, class := range r.Classes {
		if other := o.class(class.Class); other != nil {
			add(fmt.Sprintf("%s p50", cmp.Or(class.Class, "no class")), "s",
				func(r *Report) float64 { return r.class(class.Class).LatencyS.P50 }, true,
				func(l log) []float64 { return latencies(l.uploadsOf(class.Class), fromDue) })
		}
	}
	if r.Reads != nil && o.Reads != nil {
		add("reads", "reads/s", func(r *Report) float64 { return r.Reads.ThroughputPerS }, false, nil)
		add("reads p50", "s", func(r *Report) float64 { return r.Reads.LatencyS.P50 }, true,
			func(l log) []float64 { return latencies(l.reads(), fromDue) })
	}
	add("balance", "% stddev", func(r *Report) float64 { return r.Balance.StddevPercent }, true, nil)
	add("balance by bytes", "% stddev", func(r *Report) float64 { return r.Balance.BytesStddevPercent }, true,
		nil)
	for _, f := range sample.Nodes {
		if f.Report.Compared != "" {
			scale := f.Report.Scale
			highest := func(r *Report) float64 { return scale.Factor() * r.highest(f.Name) }
			add(f.Report.Compared, string(scale), highest, true, nil)
		}
	}
	c.judge()
	r.Comparison = c
}

// class returns the class of that name, nil when the run has none.
func (r *Report) class(name string) *Class {
	i := slices.IndexFunc(r.Classes, func(c Class) bool { return c.Class == name })
	if i < 0 {
		return nil
	}
	return &r.Classes[i]
}

// highest returns the largest summary of a figure, over the nodes.
func (r *Report) highest(figure string) (most float64) {
	for _, n := range r.Nodes {
		most = max(most, n.Of[figure])
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
		v = append(v, p.V)
	}
	return v
}

// judge tells differences from Noise: of many tests some would find one by chance, so the p values are
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
			f.Outcome = Noise
		}
	}
}

// settings lists what differs of how the runs were made.
func (c *Comparison) settings(this, other []Setting) {
	value := func(list []Setting, name string) string {
		for _, s := range list {
			if s.Name == name {
				return s.Value
			}
		}
		return ""
	}
	seen := map[string]bool{"started": true}
	for _, s := range slices.Concat(this, other) {
		name := s.Name
		if a, b := value(this, name), value(other, name); !seen[name] && a != b {
			c.Settings = append(c.Settings, SettingChanged{name, cmp.Or(a, "-"), cmp.Or(b, "-")})
		}
		seen[name] = true
	}
}
