package report

import (
	"math"
	"testing"

	"imgcluster/modes/runlog"
	"imgcluster/modes/runlog/logtest"
)

// compute writes records, reads them back and computes the report.
func compute(t testing.TB, recs ...runlog.Record) *Report {
	t.Helper()
	return Compute(logtest.Log(t, recs...), DefaultLimits())
}

// checkNamed returns the check of that name.
func checkNamed(t testing.TB, r *Report, name string) Check {
	t.Helper()
	for _, c := range r.Verdict.Checks {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no check %q", name)
	return Check{}
}

// compared is the report of a run beside one of the same that was a quarter slower, with more at once.
func compared(t testing.TB) *Report {
	t.Helper()
	this := logtest.Log(t, logtest.Even(300)...)
	other := logtest.Log(t, logtest.Slower()...)
	r := Compute(this, DefaultLimits())
	r.Log = "this.jsonl"
	r.Compare(this, other, "other.jsonl")
	return r
}

// figures are figures that a check has, by name.
type figures map[string]float64

// absent is a figure that the check does not have.
var absent = math.NaN()

// expect expects these figures of a check, to a thousandth.
func (f figures) expect(t testing.TB, c Check) {
	t.Helper()
	for name, want := range f {
		got, has := c.Figures[name]
		if has == math.IsNaN(want) || math.Abs(got-want) > 1e-3*max(1, math.Abs(want)) {
			t.Errorf("%s is %v (there: %v), want %v; %s: %s", name, got, has, want, c.Status, c.Evidence)
		}
	}
}
