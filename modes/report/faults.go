package report

import (
	"fmt"
	"slices"
	"strings"

	"imgcluster/modes/runlog"
	"imgcluster/modes/term"
)

// faultWindowS is for how long after a fault, in seconds, a pause between acknowledgements is attributed to
// it.
const faultWindowS = 30.0

// faultTolerance requires that all uploads succeeded in spite of the faults, and, when the run made the
// faults itself, that it made all of them, the cluster recovered from each, acknowledgements never stopped
// for long, and every acknowledged image was read back as it was sent. It needs uploads that ended after the
// first fault: the others were not affected. Where the log is truncated, what it does not have is not a
// failure.
func (j *judgement) faultTolerance() (Status, string) {
	planned := j.log.Run.FaultsPlanned()
	if len(j.faults) == 0 && planned == 0 {
		return Skipped, "no node was lost in this run"
	}
	after := slices.ContainsFunc(j.log.Uploads, func(u runlog.UploadOutcome) bool {
		return len(j.faults) > 0 && u.FinishS() >= j.faults[0].TS
	})
	evidence, survived := j.faultCount(planned)
	if !after && planned == 0 {
		return Skipped, evidence + ", but no upload ended after it"
	}
	every := func(runlog.Fault) bool { return true }
	kill := func(f runlog.Fault) bool { return f.Kind == runlog.EventKill }
	pause := j.longestPause(every)
	afterKill := ""
	if slices.ContainsFunc(j.faults, kill) {
		longest := j.longestPause(kill)
		j.figure("longest_pause_after_kill_s", longest)
		afterKill = fmt.Sprintf(", after a kill %s s", term.Seconds(longest))
	}
	j.figure("faults", float64(len(j.faults)))
	j.figure("failed_uploads", float64(j.report.Failed))
	j.figure("longest_pause_s", pause)
	back, same := j.readBack()
	untimed := j.log.untimed() > 0 ||
		slices.ContainsFunc(j.faults, func(f runlog.Fault) bool { return !f.Timed })
	unhealed := slices.ContainsFunc(j.faults, func(f runlog.Fault) bool { return f.Unhealed })
	stopped := j.missing.Uploads != "" || j.missing.End != ""
	cut := planned > 0 && (j.missing.Readback != "" || j.missing.Faults != "" && stopped && !unhealed)
	evidence += fmt.Sprintf(", %s failed; longest pause between acknowledgements %s s%s; %s",
		term.Plural(j.report.Failed, "upload"), term.Seconds(pause), afterKill, back)
	switch {
	case j.report.Attempted == 0:
		return Skipped, evidence + "; no upload was attempted"
	case !j.report.enough() || !same || planned > 0 && pause > j.limits.PauseS:
		return Failed, evidence
	case cut:
		return Skipped, evidence
	case untimed:
		return Skipped, evidence + "; the log does not say when all faults and uploads were"
	}
	return outcome(planned == 0 || survived), evidence
}

// faultCount counts the faults in words, and reports whether all that were planned were made and survived.
func (j *judgement) faultCount(planned int) (evidence string, survived bool) {
	count := map[string]int{}
	made, healed := 0, 0
	for _, f := range j.faults {
		count[f.Kind]++
		if f.Made() {
			made++
			if f.Healed {
				healed++
			}
		}
	}
	evidence = term.Plural(len(j.faults), "fault")
	if planned == 0 {
		return evidence, false
	}
	var words []string
	for _, kind := range []struct{ event, noun string }{
		{runlog.EventKill, "kill"},
		{runlog.EventPause, "pause"},
		{runlog.EventStop, "restart"},
	} {
		if n := count[kind.event]; n > 0 {
			words = append(words, term.Plural(n, kind.noun))
		}
	}
	j.figure("faults_planned", float64(planned))
	j.figure("faults_survived", float64(healed))
	evidence = fmt.Sprintf("survived %d of %s", healed, term.Plural(planned, "fault"))
	if len(words) > 0 {
		evidence += " (" + strings.Join(words, ", ") + ")"
	}
	if seen := len(j.faults) - made; seen > 0 {
		evidence += fmt.Sprintf(" and %s more that the run did not make", term.Plural(seen, "fault"))
	}
	return evidence, made == planned && healed == planned
}

// readBack counts the images read after the run in words, and reports whether all of them were as they were
// sent. An image that was read with other bytes, or was missing, stays in the log when all are read once
// more.
func (j *judgement) readBack() (evidence string, same bool) {
	var b runlog.Readback
	if j.log.Readback != nil {
		b = *j.log.Readback
	}
	b.Mismatched = max(b.Mismatched, j.log.CountEvents(runlog.EventImageMismatched))
	b.Missing = max(b.Missing, j.log.CountEvents(runlog.EventImageMissing))
	if j.log.Readback == nil && b.Wrong() == 0 {
		return "no image read back", true
	}
	b.Images = max(b.Images, b.Matched+b.Wrong())
	j.figure("read_back_images", float64(b.Images))
	j.figure("read_back_same", float64(b.Matched))
	evidence = fmt.Sprintf("%d of %s read back and the same", b.Matched, term.Plural(b.Images, "image"))
	for _, bad := range []struct {
		n            int64
		figure, what string
	}{
		{b.Mismatched, "read_back_mismatched", "with other bytes"},
		{b.Missing, "read_back_missing", "missing"},
		{b.Unread, "read_back_unread", "unreadable"},
	} {
		j.figure(bad.figure, float64(bad.n))
		if bad.n > 0 {
			evidence += fmt.Sprintf(", %d %s", bad.n, bad.what)
		}
	}
	return evidence, b.Wrong() == 0
}

// longestPause returns the longest time without a successful upload that overlaps such a fault or the
// faultWindowS after it, up to the next fault. When all later uploads failed, it lasts to the end of the last
// one. Time in which no upload could start does not count.
func (j *judgement) longestPause(of func(runlog.Fault) bool) (longest float64) {
	finished := append(slices.Clip(j.finished), j.log.LastUploadS())
	for k, f := range j.faults {
		if !of(f) {
			continue
		}
		end := f.TS + faultWindowS
		if k+1 < len(j.faults) {
			end = min(end, j.faults[k+1].TS)
		}
		i, _ := slices.BinarySearch(finished, f.TS)
		for i = max(i, 1); i < len(finished) && finished[i-1] <= end; i++ {
			longest = max(longest, underLoad(j.held, finished[i-1], finished[i]))
		}
	}
	return longest
}
