package report

import (
	"fmt"
	"math"
	"strings"

	"imgcluster/modes/runlog"
	"imgcluster/modes/term"
)

// Status is the outcome of a check.
type Status string

// The outcomes. Skipped means that the log has no evidence either way, or that the check does not apply to
// the run.
const (
	Passed  Status = "passed"
	Failed  Status = "failed"
	Skipped Status = "skipped"
)

// Check is one requirement of a run, with the outcome and the evidence. Figures are the numbers behind the
// evidence; their names end in their units.
type Check struct {
	Name     string             `json:"name"`
	Status   Status             `json:"status"`
	Evidence string             `json:"evidence"`
	Figures  map[string]float64 `json:"figures,omitempty"`
}

// judgement has what the checks need.
type judgement struct {
	log      log
	report   *Report
	missing  runlog.Missing
	limits   Limits
	nodes    []NodeShare        // the run's
	finished []float64          // when the successful uploads ended, ascending
	faults   []runlog.Fault     // by time
	held     []runlog.Interval  // when no upload could start
	figures  map[string]float64 // of the current check
}

// figure adds a number to the current check, unless it is NaN or infinite.
func (j *judgement) figure(name string, v float64) {
	if !math.IsNaN(v) && !math.IsInf(v, 0) {
		j.figures[name] = v
	}
}

// checks lists all checks in the order of the report. Each returns its outcome and evidence.
var checks = []struct {
	name  string
	check func(*judgement) (Status, string)
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
		log:      l,
		report:   r,
		missing:  l.Missing(),
		limits:   r.Limits,
		nodes:    l.runNodes(r.Nodes),
		finished: l.finished(),
		faults:   l.Faults(),
		held:     l.Held(),
	}
	v := Verdict{Incomplete: j.missing.String(), failed: !r.enough()}
	for _, c := range checks {
		j.figures = map[string]float64{}
		status, evidence := c.check(j)
		v.failed = v.failed || status == Failed
		v.Checks = append(v.Checks, Check{c.name, status, evidence, j.figures})
	}
	v.Passed = !v.failed && v.Incomplete == ""
	v.Text = v.text(r)
	return v
}

// Word returns the verdict in short: passed, failed or incomplete.
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

// enough reports whether there were uploads, and as many of them and of the reads succeeded as the limit asks
// for.
func (r *Report) enough() bool {
	return r.Attempted > 0 && reaches(r.Succeeded, r.Attempted, r.Limits.SuccessPercent) &&
		(r.Reads == nil || reaches(r.Reads.Succeeded, r.Reads.Attempted, r.Limits.SuccessPercent))
}

func reaches(part, whole int, percent float64) bool {
	return part == whole || 100*float64(part) >= percent*float64(whole)
}

// text returns the verdict in one sentence.
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
	incomplete := ""
	if v.Incomplete != "" {
		incomplete = "; INCOMPLETE: " + v.Incomplete
	}
	switch {
	case r.Attempted == 0 && r.Warmup.Uploads > 0:
		return fmt.Sprintf("SYSTEM FAILED: ALL %d UPLOADS WERE IN THE WARM-UP, WHICH IS LEFT OUT%s",
			r.Warmup.Uploads, incomplete)
	case r.Attempted == 0:
		return "SYSTEM FAILED: NO UPLOAD WAS ATTEMPTED" + incomplete
	case len(failed) > 0 && !r.enough():
		return "SYSTEM FAILED " + tests + " AND " + lost + incomplete
	case len(failed) > 0:
		return "SYSTEM FAILED " + tests + incomplete
	case !r.enough():
		return "SYSTEM FAILED " + lost + incomplete
	case incomplete != "":
		return fmt.Sprintf("INCOMPLETE: %s; %s passed so far, %d skipped", v.Incomplete,
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

// lost counts the failed operations in words; it is empty when none failed.
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

// outcome returns Passed when ok, else Failed.
func outcome(ok bool) Status {
	if ok {
		return Passed
	}
	return Failed
}
