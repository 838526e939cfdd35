package report

import (
	"cmp"
	"fmt"
	"slices"

	"imgcluster/cluster/sample"
	"imgcluster/modes/runlog"
)

// Comparison compares a run with another one.
type Comparison struct {
	Other    string           `json:"other"` // the other log
	Test     string           `json:"test"`  // that separates differences from Noise
	Alpha    float64          `json:"alpha"` // p values below are beyond Noise
	Settings []SettingChanged `json:"settings"`
	Figures  []FigureChanged  `json:"figures"`

	OtherIncomplete string  `json:"other_incomplete,omitempty"` // what the other log lacks
	OtherCharts     Charts  `json:"-"`
	OtherElapsedS   float64 `json:"-"`
}

// SettingChanged is a setting that differs between the two runs.
type SettingChanged struct {
	Name  string `json:"name"`
	This  string `json:"this"`
	Other string `json:"other"`
}

// FigureChanged is a figure of both runs. P is the probability of such a difference, or a larger one, between
// two runs that differ by chance only; nil when the figure was not tested.
type FigureChanged struct {
	Name          string   `json:"name"`
	Unit          string   `json:"unit"`
	This          float64  `json:"this"`
	Other         float64  `json:"other"`
	ChangePercent float64  `json:"change_percent"` // of Other; 0 when that is 0
	P             *float64 `json:"p,omitempty"`
	Outcome       string   `json:"outcome"` // Better, Worse, Noise or Untested
}

// The outcomes of a comparison.
const (
	Better   = "better"
	Worse    = "worse"
	Noise    = "noise"
	Untested = "untested"
)

const (
	compareAlpha      = 0.01
	compareSecondsMin = 2.0 // of both runs; in less, the few uploads at once decide on all figures
	compareSamplesMin = 10  // in each run
	comparePeriod     = 1.0 // seconds of throughput that make one sample; less in short runs
	compareParts      = 20  // samples of a short run

	compareTest = "Mann-Whitney U, two-sided, over the throughput of every second and over the latencies of " +
		"all operations of a class, its variance widened for autocorrelation, p values after Holm " +
		"(Scandinavian Journal of Statistics 6, 1979); not of runs under 2 s or fewer than 10 operations"
)

// Compare adds the comparison of r, the report of this log, with the log that has this name.
func (r *Report) Compare(this, that *runlog.Log, name string) {
	other := Compute(that, r.Limits)
	c := &Comparison{
		Other:           name,
		Test:            compareTest,
		Alpha:           compareAlpha,
		Settings:        []SettingChanged{},
		OtherIncomplete: other.Verdict.Incomplete,
		OtherCharts:     other.Charts,
		OtherElapsedS:   other.ElapsedS,
	}
	if c.OtherIncomplete != "" {
		r.Notes = append(r.Notes, fmt.Sprintf("the run of %s is INCOMPLETE: %s", name, c.OtherIncomplete))
	}
	c.settings(r.Settings(), other.Settings())
	longEnough := min(r.MeasuredS, other.MeasuredS) >= compareSecondsMin
	for _, f := range r.comparedWith(other) {
		changed := FigureChanged{
			Name:    f.name,
			Unit:    f.unit,
			This:    f.of(r),
			Other:   f.of(other),
			Outcome: Untested,
		}
		changed.ChangePercent = 100 * ratio(changed.This-changed.Other, changed.Other)
		if f.samples != nil && longEnough {
			changed.test(f.samples(log{this}), f.samples(log{that}), f.higherIsBetter)
		}
		c.Figures = append(c.Figures, changed)
	}
	c.correctForManyTests()
	r.Comparison = c
}

// comparedFigure is a figure that is compared between two runs.
type comparedFigure struct {
	name, unit     string
	of             func(*Report) float64
	higherIsBetter bool
	samples        func(log) []float64 // nil when it is not tested
}

// comparedWith lists the figures that both runs have.
func (r *Report) comparedWith(other *Report) []comparedFigure {
	list := []comparedFigure{
		{"success", "%", func(r *Report) float64 { return 100 * r.SuccessRate }, true, nil},
		{"throughput", "uploads/s", func(r *Report) float64 { return r.ThroughputPerS }, true, log.paceSamples},
		{"volume", "MB/s", func(r *Report) float64 { return r.ThroughputBytesPerS / 1e6 }, true, nil},
		{"latency p50", "s", func(r *Report) float64 { return r.LatencyS.P50 }, false, func(l log) []float64 {
			return ofMeasured(l.uploads(), fromDue)
		}},
		{"latency p99", "s", func(r *Report) float64 { return r.LatencyS.P99 }, false, nil},
	}
	for _, class := range r.Classes {
		name := class.Class
		if other.class(name) == nil {
			continue
		}
		list = append(list, comparedFigure{
			name:    cmp.Or(name, "no class") + " p50",
			unit:    "s",
			of:      func(r *Report) float64 { return r.class(name).LatencyS.P50 },
			samples: func(l log) []float64 { return ofMeasured(l.uploadsOf(name), fromDue) },
		})
	}
	if r.Reads != nil && other.Reads != nil {
		reads := func(l log) []float64 { return ofMeasured(l.reads(), fromDue) }
		list = append(list,
			comparedFigure{"reads", "reads/s", func(r *Report) float64 { return r.Reads.ThroughputPerS }, true, nil},
			comparedFigure{"reads p50", "s", func(r *Report) float64 { return r.Reads.LatencyS.P50 }, false, reads})
	}
	byUploads := func(r *Report) float64 { return r.Balance.StddevPercent }
	byBytes := func(r *Report) float64 { return r.Balance.BytesStddevPercent }
	list = append(list,
		comparedFigure{"balance", "% stddev", byUploads, false, nil},
		comparedFigure{"balance by bytes", "% stddev", byBytes, false, nil})
	for _, f := range sample.Nodes {
		if scale := f.Report.Scale; f.Report.Compared != "" {
			list = append(list, comparedFigure{
				name: f.Report.Compared,
				unit: string(scale),
				of:   func(r *Report) float64 { return scale.Factor() * r.highest(f.Name) },
			})
		}
	}
	return list
}

// test sets the outcome by the samples of this run and of the other.
func (f *FigureChanged) test(this, other []float64, higherIsBetter bool) {
	if min(len(this), len(other)) < compareSamplesMin {
		return
	}
	f.P = new(mannWhitney(this, other))
	f.Outcome = Worse
	if higher := median(this) >= median(other); higher == higherIsBetter {
		f.Outcome = Better
	}
}

// class returns the class of that name; nil when the run has none.
func (r *Report) class(name string) *Class {
	i := slices.IndexFunc(r.Classes, func(c Class) bool { return c.Class == name })
	if i < 0 {
		return nil
	}
	return &r.Classes[i]
}

// highest returns the highest of the nodes' summaries of a figure.
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
	seconds := finished[len(finished)-1] - finished[0]
	var v []float64
	for _, p := range l.pace(finished, max(int(seconds/comparePeriod), compareParts)) {
		v = append(v, p.V)
	}
	return v
}

// correctForManyTests raises the p values, the smallest most, since of many tests some find a difference by
// chance (Holm, Scandinavian Journal of Statistics 6, 1979). What is not below Alpha then is Noise.
func (c *Comparison) correctForManyTests() {
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

// settings lists the settings that differ, all but when the runs were started.
func (c *Comparison) settings(this, other []Setting) {
	value := func(list []Setting, name string) string {
		for _, s := range list {
			if s.Name == name {
				return s.Value
			}
		}
		return ""
	}
	listed := map[string]bool{"started": true}
	for _, s := range slices.Concat(this, other) {
		a, b := value(this, s.Name), value(other, s.Name)
		if a != b && !listed[s.Name] {
			c.Settings = append(c.Settings, SettingChanged{s.Name, cmp.Or(a, "-"), cmp.Or(b, "-")})
		}
		listed[s.Name] = true
	}
}
