package report

import (
	"math"
	"strings"
	"testing"

	"imgcluster/modes/runlog"
	"imgcluster/modes/runlog/logtest"
)

// TestWarmupIsLeftOut makes the warm-up as bad as can be: no figure may change by it.
func TestWarmupIsLeftOut(t *testing.T) {
	bad := logtest.Mutate(logtest.Mixed(), func(u *runlog.Upload) {
		if u.Warmup {
			u.LatencyS, u.OK, u.Owner, u.Bytes, u.SentBytes, u.Error = 900, false, 0, 1, 1e9, "cold"
		}
	})
	want, got := compute(t, logtest.Mixed()...), compute(t, bad...)
	if got.Attempted != want.Attempted || got.Failed != 0 || got.LatencyS != want.LatencyS ||
		got.ThroughputPerS != want.ThroughputPerS || got.SentBytes != want.SentBytes {
		t.Errorf("%+v with a bad warm-up, %+v with a good one", got, want)
	}
	if want.Warmup.Uploads != 49 || want.Warmup.Reads != 13 || got.Warmup.Failed != 49 {
		t.Errorf("left out: %+v, %+v", want.Warmup, got.Warmup)
	}
	if want.Attempted != 351 || want.MeasuredS != want.ElapsedS-2 || want.ThroughputPerS != 351/want.MeasuredS {
		t.Errorf("%d uploads in %v of %v s, %v/s", want.Attempted, want.MeasuredS, want.ElapsedS,
			want.ThroughputPerS)
	}
}

// TestLatencyCountsFromWhenDue stalls an open loop: the uploads that had to wait show it, though each was
// sent fast.
func TestLatencyCountsFromWhenDue(t *testing.T) {
	r := compute(t, logtest.Mutate(logtest.Even(200), func(u *runlog.Upload) {
		u.ScheduledS = new(u.StartS)
		if u.Seq > 150 {
			u.StartS += 3
		}
		u.LatencyS = 0.1
	})...)
	if r.LatencyS.P50 != 0.1 || math.Abs(r.LatencyS.P99-3.1) > 1e-9 || r.ServiceLatencyS == nil ||
		math.Abs(r.ServiceLatencyS.P99-0.1) > 1e-9 {
		t.Errorf("%+v from when due, %+v from when sent", r.LatencyS, r.ServiceLatencyS)
	}
	if r := compute(t, logtest.Even(200)...); r.ServiceLatencyS != nil {
		t.Error("a closed loop has two latencies")
	}
}

func TestReadsHaveTheirOwnFigures(t *testing.T) {
	r := compute(t, logtest.Mixed()...)
	if r.Reads == nil || r.Reads.Attempted != 87 || r.Reads.Failed != 1 ||
		r.Reads.Failures[0].Error != "not found" || r.Reads.LatencyS.Max != 0.11 {
		t.Fatalf("%+v", r.Reads)
	}
	if r.Verdict.Passed {
		t.Errorf("passed: %s", r.Verdict.Text)
	}
	l := DefaultLimits()
	l.SuccessPercent = 98
	r = Compute(logtest.Log(t, logtest.Mixed()...), l)
	if !r.Verdict.Passed || !strings.Contains(r.Verdict.Text, "FAILED 1 OF 87 READS: AS MANY AS ALLOWED") {
		t.Errorf("passed %v, %s", r.Verdict.Passed, r.Verdict.Text)
	}
}

// TestLimits tightens each limit until the check that goes by it fails.
func TestLimits(t *testing.T) {
	for _, c := range []struct {
		check   string
		records []runlog.Record
		tighten func(*Limits)
	}{
		{"balance", logtest.Mutate(logtest.Even(1500), func(u *runlog.Upload) {
			if u.Seq <= 12*20 && u.Owner == 2 {
				u.Owner = 1
			}
		}), func(l *Limits) { l.StddevPercent = 0.15 }},
		{"sustained_load", logtest.Even(300), func(l *Limits) { l.P99S = 0.4 }},
		{"sustained_load", logtest.Even(300), func(l *Limits) { l.ThroughputPerS = 30 }},
		{
			"sustained_load",
			logtest.Mutate(logtest.Even(1500), func(u *runlog.Upload) { u.StartS *= 1 + u.StartS/900 }),
			func(l *Limits) { l.SlowdownPercent = 5 },
		},
		{"memory_stable", logtest.Even(300), func(l *Limits) { l.NodeRSSBytes = 182 << 20 }},
		{"memory_stable", logtest.Even(300), func(l *Limits) { l.ClientRSSBytes = 88 << 20 }},
		{"memory_stable", append(logtest.Even(0), slowLeak()...), func(l *Limits) { l.GrowthBytes = 10 << 20 }},
		{
			"network", logtest.Mutate(logtest.Even(300), func(u *runlog.Upload) { u.SentBytes += u.Bytes / 10 }),
			func(l *Limits) { l.ResentPercent = 1 },
		},
		{"hash_quality", eventRecordsWithoutFault(), func(l *Limits) { l.FirstChoicePercent = 90 }},
		{"hash_quality", logtest.Mutate(logtest.Even(300), func(u *runlog.Upload) {
			if u.Seq <= 30 && u.Owner == 2 {
				u.Owner = 1
			}
		}), func(l *Limits) { l.HashP = 0.5 }},
		{"fault_tolerance", logtest.Chaos(), func(l *Limits) { l.PauseS = 1 }},
	} {
		log := logtest.Log(t, c.records...)
		loose := DefaultLimits()
		loose.StddevPercent = 50
		tight := loose
		c.tighten(&tight)
		if tight == loose {
			t.Fatalf("%s: nothing is tighter", c.check)
		}
		if got := checkNamed(t, Compute(log, loose), c.check); got.Status != Passed {
			t.Errorf("%s by %+v: %s: %s", c.check, loose, got.Status, got.Evidence)
		}
		if got := checkNamed(t, Compute(log, tight), c.check); got.Status != Failed {
			t.Errorf("%s by %+v: %s: %s", c.check, tight, got.Status, got.Evidence)
		}
	}
}

func slowLeak() (recs []runlog.Record) {
	for t := range 60 {
		recs = append(recs, logtest.MemorySamples(float64(4*t), int64(180+t)<<20)...)
	}
	return recs
}

func eventRecordsWithoutFault() []runlog.Record {
	return logtest.Mutate(logtest.Even(300), func(u *runlog.Upload) { u.FirstChoice = new(u.Seq%5 != 0) })
}

// TestCompare sets a run beside others.
func TestCompare(t *testing.T) {
	figure := func(r *Report, name string) FigureChanged {
		for _, f := range r.Comparison.Figures {
			if f.Name == name {
				return f
			}
		}
		t.Fatalf("no figure %q", name)
		return FigureChanged{}
	}
	r := compared(t)
	for _, name := range []string{"throughput", "latency p50", "small p50", "xlarge p50"} {
		if f := figure(r, name); f.Outcome != Better || f.P == nil || *f.P >= compareAlpha {
			t.Errorf("a quarter faster: %+v", f)
		}
	}
	if f := figure(r, "latency p99"); f.Outcome != Untested || f.P != nil {
		t.Errorf("%+v", f)
	}
	if s := r.Comparison.Settings; len(s) != 1 || s[0] != (SettingChanged{"load", "8 at once", "16 at once"}) {
		t.Errorf("%+v", s)
	}
	log := logtest.Log(t, logtest.Even(300)...)
	jitter := logtest.Log(t, logtest.Mutate(logtest.Even(300), func(u *runlog.Upload) {
		u.LatencyS += float64(u.Seq*7919%13-6) / 2000
	})...)
	same := Compute(log, DefaultLimits())
	same.Compare(log, jitter, "other")
	for _, f := range same.Comparison.Figures {
		if f.Outcome != Noise && f.Outcome != Untested {
			t.Errorf("the same but for Noise: %+v", f)
		}
	}
	if len(same.Comparison.Settings) != 0 {
		t.Errorf("%+v", same.Comparison.Settings)
	}
	slow := logtest.Log(t, logtest.Mutate(logtest.Even(300), func(u *runlog.Upload) { u.LatencyS *= 0.5 })...)
	same.Compare(log, slow, "other")
	if f := figure(same, "latency p50"); f.Outcome != Worse {
		t.Errorf("twice as slow: %+v", f)
	}
	empty := logtest.Log(t, logtest.Even(0)...)
	same.Compare(log, empty, "other")
	if f := figure(same, "throughput"); f.Outcome != Untested {
		t.Errorf("against nothing: %+v", f)
	}
	for name, short := range map[string][]runlog.Record{
		"0.2 s": append(logtest.Mutate(logtest.Even(200), func(u *runlog.Upload) {
			u.StartS, u.LatencyS = u.StartS/50, u.LatencyS/50
		})[:201], runlog.End{ElapsedS: 0.2}),
		"9 uploads": logtest.Mutate(logtest.Even(9), func(u *runlog.Upload) { u.StartS *= 20 }),
	} {
		same.Compare(log, logtest.Log(t, short...), name)
		for _, f := range same.Comparison.Figures {
			if f.Outcome != Untested || f.P != nil {
				t.Errorf("against %s: %+v", name, f)
			}
		}
	}
}
