package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"imgcluster/modes/runlog"
	"imgcluster/modes/runlog/logtest"
)

// reportOf returns the report of a log.
func reportOf(log []byte) (*Report, error) {
	l, err := runlog.Read(bytes.NewReader(log))
	if err != nil {
		return nil, err
	}
	return Compute(l, DefaultLimits()), nil
}

// TestCutNeverPasses cuts the log of a run with everything at each byte: it passes whole and never else.
func TestCutNeverPasses(t *testing.T) {
	whole := logtest.Encode(t, logtest.Whole(12)...)
	for _, n := range []int{len(whole), len(whole) - 1} { // the last byte is a line end
		if r, err := reportOf(whole[:n]); err != nil || !r.Verdict.Passed || r.Verdict.Incomplete != "" {
			t.Fatalf("%d of %d bytes: %+v, %v", n, len(whole), r, err)
		}
	}
	for n := range len(whole) - 1 {
		r, err := reportOf(whole[:n])
		if err != nil {
			continue
		}
		if v := r.Verdict; v.Passed || v.Incomplete == "" || v.failed && r.Attempted > 0 {
			t.Fatalf("cut at %d of %d: %s", n, len(whole), v.Text)
		}
	}
}

// TestHoleNeverPasses takes each line out that says that something was done.
func TestHoleNeverPasses(t *testing.T) {
	lines := bytes.SplitAfter(logtest.Encode(t, logtest.Whole(30)...), []byte("\n"))
	evidence := regexp.MustCompile(`"type":"(run|upload|readback|cleaned|end)"|` +
		`"kind":"node_(killed|paused|stopped|healed)"`)
	holes := 0
	for i, line := range lines {
		if !evidence.Match(line) {
			continue
		}
		holes++
		r, err := reportOf(bytes.Join(slices.Delete(slices.Clone(lines), i, i+1), nil))
		if err == nil && (r.Verdict.Passed || r.Verdict.Incomplete == "") {
			t.Errorf("without %s: %s", line, r.Verdict.Text)
		}
	}
	if holes != 1+30+6+3 {
		t.Errorf("%d lines were taken out", holes)
	}
}

// TestMissing names each part of a run of which the log has no evidence.
func TestMissing(t *testing.T) {
	without := func(drop func(runlog.Record) bool) []runlog.Record {
		return slices.DeleteFunc(logtest.Whole(30), drop)
	}
	event := func(kind string) func(runlog.Record) bool {
		return func(r runlog.Record) bool { e, is := r.(runlog.Event); return is && e.Kind == kind }
	}
	instead := func(with runlog.Record) []runlog.Record {
		recs := logtest.Whole(30)
		for i, r := range recs {
			if fmt.Sprintf("%T", r) == fmt.Sprintf("%T", with) {
				recs[i] = with
			}
		}
		return recs
	}
	warm := logtest.SetRun(logtest.Even(90), func(r *runlog.Run) { r.Plan.Verify = true })
	warm = logtest.Mutate(warm, func(u *runlog.Upload) { u.Warmup = u.Seq < 20 })
	for _, c := range []struct {
		name    string
		records []runlog.Record
		want    string
		final   bool // cannot be resumed
	}{
		{"nothing", logtest.Whole(30), "", false},
		{"end", without(logtest.Is[runlog.End]), "no end record", false},
		{
			"read-back", without(logtest.Is[runlog.Readback]),
			"no image read back", true,
		},
		{
			"read-back, part", instead(runlog.Readback{Images: 30, Matched: 17, Missing: 1}),
			"18 of 30 images read back", true,
		},
		{
			"read-back of an earlier part", instead(runlog.Readback{Images: 20, Matched: 20}),
			"20 of 30 images read back", true,
		},
		{
			"cleanup", without(logtest.Is[runlog.Cleaned]),
			"no image deleted", false,
		},
		{
			"cleanup, part", instead(runlog.Cleaned{Images: 20, Missing: 4, Failed: 6}), "24 of 30 images deleted",
			false,
		},
		{"cleanup of an earlier part", instead(runlog.Cleaned{Images: 20}), "20 of 30 images deleted", false},
		{"a fault", without(event(runlog.EventKill)), "2 of 3 planned faults", true},
		{"recovery", without(event(runlog.EventHealed)), "the recovery from 3 faults", true},
		{
			"uploads", without(func(r runlog.Record) bool { u, is := r.(runlog.Upload); return is && u.Seq > 20 }),
			"20 of 30 planned uploads", true,
		},
		{
			"plan", without(logtest.Is[runlog.Run]),
			"no run record to say what was planned", true,
		},
		{
			"count", logtest.SetRun(logtest.Whole(30), func(r *runlog.Run) { r.Count = 0 }),
			"nothing says how many uploads were planned", true,
		},
		{
			"chaos of no number", logtest.SetRun(logtest.Even(30), func(r *runlog.Run) { r.Plan.Chaos = true }),
			"0 of 1 planned fault, no image read back", true,
		},
		{"all that a plain run has planned", logtest.Even(30), "", false},
		{
			"added to the plan", logtest.BeforeEnd(logtest.Even(30), runlog.Plan{Verify: true}), "no image read back",
			false,
		},
		{
			"what was added came to its end",
			logtest.BeforeEnd(logtest.Even(30), runlog.Plan{Verify: true}, runlog.Readback{Images: 30, Matched: 30}),
			"", false,
		},
		{
			"a demo", logtest.SetRun(logtest.Even(30), func(r *runlog.Run) { r.Demo, r.Plan.Verify = true, true }),
			"no image read back", true,
		},
		{
			"resumed after its end", append(logtest.Even(30), runlog.Event{TS: 9, Kind: runlog.EventResumed}),
			"no end record", false,
		},
		{
			"read-back of a warm-up", logtest.BeforeEnd(warm, runlog.Readback{Images: 71, Matched: 71}),
			"71 of 90 images read back", false,
		},
	} {
		l := logtest.Log(t, c.records...)
		if got := l.Missing().String(); got != c.want || (l.Final() != "") != c.final {
			t.Errorf("%s: missing %q, %q; want %q", c.name, got, l.Final(), c.want)
		}
		r := Compute(l, DefaultLimits())
		advised := strings.Contains(strings.Join(r.Notes, "\n"), "stress --resume")
		if advised != (c.want != "" && !c.final) {
			t.Errorf("%s: it is advised to resume: %v", c.name, advised)
		}
		if v := r.Verdict; v.Incomplete != c.want || c.want != "" && v.Passed {
			t.Errorf("%s: %+v", c.name, v)
		}
	}
}

// TestCutIsNoFailure has nothing failed in a run with faults that was killed before all were over.
func TestCutIsNoFailure(t *testing.T) {
	recs := logtest.Whole(30)
	for n := 10; n < len(recs); n++ {
		if c := checkNamed(t, compute(t, recs[:n]...), "fault_tolerance"); c.Status == Failed {
			t.Errorf("after %d records: %s", n, c.Evidence)
		}
	}
	lost := append(slices.Clone(recs[:len(recs)-4]),
		runlog.Event{TS: 3, Kind: runlog.EventKill, Node: 1},
		runlog.Event{TS: 4, Kind: runlog.EventUnhealed, Node: 1})
	if c := checkNamed(t, compute(t, lost...), "fault_tolerance"); c.Status != Skipped { // nothing was read back
		t.Errorf("%s: %s", c.Status, c.Evidence)
	}
}

// TestBadImageStays holds an image that came back with other bytes against the run, though the reading was
// truncated, or all came back well when it was resumed.
func TestBadImageStays(t *testing.T) {
	bad := runlog.Event{TS: 9, Kind: runlog.EventImageMismatched, Detail: "stress_image_7.png: other bytes"}
	resumed := runlog.Event{TS: 9, Kind: runlog.EventResumed}
	for _, more := range [][]runlog.Record{{bad}, {bad, resumed, runlog.Readback{Images: 200, Matched: 200}}} {
		r := compute(t, logtest.BeforeEnd(logtest.Even(200), more...)...)
		c := checkNamed(t, r, "production_scale_files")
		if c.Status != Failed {
			t.Errorf("%s: %s", c.Status, c.Evidence)
		}
		figures{"read_back_mismatched": 1}.expect(t, c)
	}
}

// absentCases say which checks have no evidence without a field.
var absentCases = []struct {
	records, field string
	checks         string
}{
	{"run", "nodes", "balance memory_stable network hash_quality"},
	{"run", "delivery", "network"},
	{"upload", "owner", "balance hash_quality"},
	{"upload", "bytes", "production_scale_files balance network"},
	{"upload", "class", "production_scale_files"},
	{"upload", "start_s", "sustained_load fault_tolerance"},
	{"upload", "latency_s", "sustained_load fault_tolerance"},
	{"upload", "sent_bytes", "network"},
	{"node", "up", "memory_stable"},
	{"node", "rss_bytes", "memory_stable"},
	{"client", "rss_bytes", "memory_stable"},
	{"event", "t_s", "fault_tolerance"},
	{"event", "kind", "fault_tolerance"},
	{"readback", "matched", "fault_tolerance"},
	{"readback", "images", ""},
}

// TestAbsentIsNotZero takes a field out of the records of a run that passes all checks, or makes it null: the
// checks that go by it are skipped, with one record of the field too, and none fails.
func TestAbsentIsNotZero(t *testing.T) {
	whole := logtest.Encode(t, logtest.Whole(90)...)
	r, err := reportOf(whole)
	if err != nil || !r.Verdict.Passed {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, check := range r.Verdict.Checks {
		if check.Status != Passed {
			t.Errorf("whole: %s %s: %s", check.Name, check.Status, check.Evidence)
		}
	}
	for _, c := range absentCases {
		for _, with := range []string{"", `"` + c.field + `":null,`} {
			for _, most := range []int{1, 1 << 20} {
				log := withoutField(t, whole, c.records, c.field, with, most)
				r, err := reportOf(log)
				if err != nil {
					t.Fatalf("%s of %s: %v", c.field, c.records, err)
				}
				for _, check := range r.Verdict.Checks {
					skipped := slices.Contains(strings.Fields(c.checks), check.Name)
					one := most == 1 && (c.records != "upload" || c.field == "class") // one of many is not missed
					switch {
					case check.Status == Failed,
						skipped && !one && check.Status != Skipped,
						!skipped && check.Status != Passed:
						t.Errorf("%d without %s of %s: %s %s: %s",
							most, c.field, c.records, check.Name, check.Status, check.Evidence)
					}
				}
			}
		}
	}
}

// withoutField takes a field out of the first records of a type.
func withoutField(t *testing.T, log []byte, typ, field, with string, most int) []byte {
	t.Helper()
	re := regexp.MustCompile(`"` + field + `":(\[[^]]*\]|"[^"]*"|[^,}]*),?`)
	var out bytes.Buffer
	for line := range bytes.Lines(log) {
		if most > 0 && bytes.HasPrefix(line, []byte(`{"type":"`+typ+`"`)) && re.Match(line) {
			line = bytes.Replace(re.ReplaceAll(line, []byte(with)), []byte(",}"), []byte("}"), 1)
			most--
			if !json.Valid(line) {
				t.Fatalf("%s", line)
			}
		}
		out.Write(line)
	}
	return out.Bytes()
}

// TestAbsentOutcome leaves an upload out of which nothing says what became of it: it neither failed nor
// counts as made.
func TestAbsentOutcome(t *testing.T) {
	log := withoutField(t, logtest.Encode(t, logtest.Whole(90)...), "upload", "ok", "", 1)
	r := Compute(logtest.Read(t, string(log)), DefaultLimits())
	if r.Attempted != 89 || r.Failed != 0 || r.Verdict.Incomplete != "89 of 90 planned uploads" {
		t.Errorf("%d attempted, %d failed: %+v", r.Attempted, r.Failed, r.Verdict)
	}
	again := withoutField(t, logtest.Encode(t, logtest.BeforeEnd(logtest.Even(90), logtest.EvenUpload(1))...),
		"upload", "ok", "", 1)
	if r := Compute(logtest.Read(t, string(again)), DefaultLimits()); r.Attempted != 90 ||
		r.Verdict.Incomplete != "" {
		t.Errorf("made again: %d attempted: %+v", r.Attempted, r.Verdict)
	}
}

// TestAbsentCounters has samples without counters: what grew meanwhile counts when it is told, not from 0.
func TestAbsentCounters(t *testing.T) {
	whole := logtest.Even(300)
	for i, rec := range whole {
		switch s := rec.(type) {
		case runlog.NodeSample:
			s.NetRxBytes, s.DiskWrittenBytes = 1e12+int64(s.TS*1e6), 1e12+int64(s.TS*1e6)
			whole[i] = s
		case runlog.ClientSample:
			s.SentBytes = 1e12 + int64(s.TS*1e6)
			whole[i] = s
		}
	}
	log := logtest.Encode(t, whole...)
	for _, typ := range []string{"node", "client"} {
		for _, field := range []string{"net_rx_bytes", "net_tx_bytes", "disk_written_bytes", "cpu_s"} {
			log = withoutField(t, log, typ, field, `"`+field+`":null,`, 7)
		}
	}
	r := Compute(logtest.Read(t, string(log)), DefaultLimits())
	for _, n := range r.Nodes {
		if n.Of["net_rx_bytes"] > 2e6 || n.Of["disk_written_bytes"] > 2e6 || n.Of["cpu_s"] > 1 {
			t.Errorf("%+v", n)
		}
	}
	if r.Client.Of["net_tx_bytes"] > 2e6 || r.Client.Of["cpu_s"] > 1 {
		t.Errorf("%+v", r.Client)
	}
}
