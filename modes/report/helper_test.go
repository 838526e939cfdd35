package report

import (
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
