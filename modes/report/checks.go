package report

import (
	"fmt"
	"math"
	"strings"

	"imgcluster/modes/runlog"
	"imgcluster/modes/term"
)

// Status is a check's outcome.
type Status string

// The outcomes. Skipped means that the log has no evidence either way, or that the run was made
// such that the check does not apply.
const (
	Passed  Status = "passed"
	Failed  Status = "failed"
	Skipped Status = "skipped"
)

// Check is one question to the run, with the answer and what it rests on. Figures are the numbers
// behind the evidence, by name; their units are at the end of the names.
type Check struct {
	Name     string             `json:"name"`
	Status   Status             `json:"status"`
	Evidence string             `json:"evidence"`
	Figures  map[string]float64 `json:"figures,omitempty"`
}

// judgement is what the checks look at.
type judgement struct {
	log      log
	report   *Report
	missing  runlog.Missing
	limits   Limits
	members  []NodeShare       // of the run's nodes
	finished []float64         // when the successful uploads ended, ascending
	faults   []runlog.Fault    // by time
	held     []runlog.Interval // when no upload could begin
	figures  map[string]float64
}

// figure keeps a number of the check that is asked. What is no number is left out.
func (j *judgement) figure(name string, v float64) {
	if !math.IsNaN(v) && !math.IsInf(v, 0) {
		j.figures[name] = v
	}
}

// checks lists all checks in the order of the report.
var checks = []struct {
	name string
	ask  func(*judgement) (Status, string)
}{
	{"production_scale_files", (*judgement).productionScale},
	{"sustained_load", (*judgement).sustainedLoad},
	{"balance", (*judgement).balanced},
	{"memory_stable", (*judgement).memoryStable},
	{"network", (*judgement).network},
	{"hash_quality", (*judgement).hashQuality},
	{"fault_tolerance", (*judgement).faultTolerance},
}

func judge(l log, r *Report) Verdict {
	j := &judgement{
		log: l, report: r, limits: r.Limits, members: l.runNodes(r.Nodes), faults: l.Faults(),
		held: l.Held(), finished: l.finished(),
	}
	j.missing = l.Missing()
	v := Verdict{Incomplete: j.missing.String(), failed: !r.enough()}
	for _, c := range checks {
		j.figures = map[string]float64{}
		status, evidence := c.ask(j)
		v.failed = v.failed || status == Failed
		v.Checks = append(v.Checks, Check{c.name, status, evidence, j.figures})
	}
	v.Passed = !v.failed && v.Incomplete == ""
	v.Text = v.text(r)
	return v
}

// Word is the verdict in short: passed, failed or incomplete.
func (v *Verdict) Word() string {
	switch {
	case v.Passed:
		return "passed"
	case v.failed:
		return "failed"
	}
	return "incomplete"
}

// skippedNodes is the evidence of a check that needs to know all nodes.
const skippedNodes = "the log does not name the nodes of the run"

// enough reports whether uploads were made, and as many succeeded, of reads too, as the limit wants.
func (r *Report) enough() bool {
	return r.Attempted > 0 && reaches(r.Succeeded, r.Attempted, r.Limits.SuccessPercent) &&
		(r.Reads == nil || reaches(r.Reads.Succeeded, r.Reads.Attempted, r.Limits.SuccessPercent))
}

func reaches(part, whole int, percent float64) bool {
	return part == whole || 100*float64(part) >= percent*float64(whole)
}

// text puts the verdict into one sentence.
func (v *Verdict) text(r *Report) string {
	count := map[Status]int{}
	var failed []string
	for _, c := range v.Checks {
		count[c.Status]++
		if c.Status == Failed {
			failed = append(failed, c.Name)
		}
	}
	lost := r.lost()
	tests := fmt.Sprintf("%d OF %d TESTS (%s)", len(failed), len(v.Checks), strings.Join(failed, ", "))
	rest := ""
	if v.Incomplete != "" {
		rest = "; INCOMPLETE: " + v.Incomplete
	}
	switch {
	case r.Attempted == 0 && r.Warmup.Uploads > 0:
		return fmt.Sprintf("SYSTEM FAILED: ALL %d UPLOADS WERE IN THE WARM-UP, WHICH IS LEFT OUT%s",
			r.Warmup.Uploads, rest)
	case r.Attempted == 0:
		return "SYSTEM FAILED: NO UPLOAD WAS ATTEMPTED" + rest
	case len(failed) > 0 && !r.enough():
		return "SYSTEM FAILED " + tests + " AND " + lost + rest
	case len(failed) > 0:
		return "SYSTEM FAILED " + tests + rest
	case !r.enough():
		return "SYSTEM FAILED " + lost + rest
	case rest != "":
		return fmt.Sprintf("%s; %s passed so far, %d skipped", strings.TrimPrefix(rest, "; "),
			term.Plural(count[Passed], "test"), count[Skipped])
	case count[Passed] == 0:
		return fmt.Sprintf("ALL UPLOADS SUCCEEDED, NO TEST APPLIED (%d skipped)", count[Skipped])
	case lost != "":
		return fmt.Sprintf("SYSTEM PASSED ALL TESTS (%d passed, %d skipped), FAILED %s: AS MANY AS ALLOWED",
			count[Passed], count[Skipped], lost)
	case count[Skipped] == 0:
		return fmt.Sprintf("SYSTEM PASSED ALL TESTS (%d passed)", count[Passed])
	}
	return fmt.Sprintf("SYSTEM PASSED ALL TESTS (%d passed, %d skipped)", count[Passed], count[Skipped])
}

// lost counts what failed, empty when nothing did.
func (r *Report) lost() string {
	var parts []string
	if r.Failed > 0 {
		parts = append(parts, fmt.Sprintf("%d OF %d UPLOADS", r.Failed, r.Attempted))
	}
	if r.Reads != nil && r.Reads.Failed > 0 {
		parts = append(parts, fmt.Sprintf("%d OF %d READS", r.Reads.Failed, r.Reads.Attempted))
	}
	return strings.Join(parts, " AND ")
}

// outcome is Passed when ok.
func outcome(ok bool) Status {
	if ok {
		return Passed
	}
	return Failed
}
