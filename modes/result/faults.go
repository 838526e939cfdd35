package result

import (
	"fmt"
	"slices"
	"strings"

	"imgcluster/modes/term"
)

// What the check of faults asks for.
const (
	faultEchoS   = 15.0 // a node seen down so soon after its kill or pause is the same fault
	faultWindowS = 30.0 // pauses in service up to here are put down to the fault
)

// fault is the loss of a node for a time.
type fault struct {
	t        float64
	node     uint32
	kind     string
	timed    bool // when is known
	healed   bool // the log tells that the cluster was over it
	unhealed bool // or that it was not, in time or at all
}

// made tells whether the fault was made by the run itself, which then tells of its end too.
func (f fault) made() bool { return f.kind == EventKill || f.kind == EventPause || f.kind == EventStop }

// faults returns when nodes were lost. A node that is killed and then seen down counts once.
func (l *Log) faults() (list []fault) {
	last := map[uint32]int{} // by node, in the list
	for _, e := range l.events {
		kind := l.kinds.list[e.kind]
		at, before := last[e.node]
		switch kind {
		case EventHealed, EventUnhealed, EventLost:
			if before {
				list[at].healed = kind == EventHealed
				list[at].unhealed = !list[at].healed
			}
			continue
		case EventNodeDown:
			if before && e.node != 0 && e.t-list[at].t <= faultEchoS {
				continue
			}
		case EventKill, EventPause, EventStop, EventPartition:
		default:
			continue
		}
		last[e.node] = len(list)
		list = append(list, fault{t: e.t, timed: e.timed, node: e.node, kind: kind})
	}
	return list
}

// span is a stretch of time in seconds.
type span struct{ from, to float64 }

// held returns the stretches in which the run let no upload begin, by time.
func (l *Log) held() (list []span) {
	for _, e := range l.events {
		switch l.kinds.list[e.kind] {
		case EventHeld:
			list = append(list, span{e.t, secondsMax})
		case EventReleased:
			if len(list) > 0 {
				list[len(list)-1].to = e.t
			}
		}
	}
	return list
}

// faultTolerance asks whether all uploads succeeded in spite of the faults, and, when the run made
// the faults itself, whether it made all of them, the cluster got over each, acknowledgements
// never stopped for long, and every acknowledged image was read back as it was sent. Uploads must
// have ended after the first fault: before, there is nothing that it could have hurt. Where the log was cut off, what
// it does not have is no failure.
func (j *judgement) faultTolerance() (Status, string) {
	planned := j.log.Run.chaos()
	if len(j.faults) == 0 && planned == 0 {
		return Skipped, "no node was lost in this run"
	}
	after := slices.ContainsFunc(j.log.uploads, func(u upload) bool { return len(j.faults) > 0 && u.finish() >= j.faults[0].t })
	evidence, whole := j.faultCount(planned)
	if !after && planned == 0 {
		return Skipped, evidence + ", but no upload ended after it"
	}
	pause, afterKill := j.longestPause(func(fault) bool { return true }), ""
	if slices.ContainsFunc(j.faults, func(f fault) bool { return f.kind == EventKill }) {
		afterKill = fmt.Sprintf(", after a kill %s s", term.Seconds(j.longestPause(func(f fault) bool { return f.kind == EventKill })))
	}
	j.figure("faults", float64(len(j.faults)))
	j.figure("failed_uploads", float64(j.report.Failed))
	j.figure("longest_pause_s", pause)
	back, same := j.log.readBack()
	untimed := j.log.untimed() > 0 || slices.ContainsFunc(j.faults, func(f fault) bool { return !f.timed })
	stopped := j.missing.Uploads != "" || j.missing.End != ""
	cut := planned > 0 && (j.missing.Readback != "" || j.missing.Faults != "" && stopped && !j.unhealed())
	evidence += fmt.Sprintf(", %s failed; longest pause between acknowledgements %s s%s; %s", term.Plural(j.report.Failed, "upload"), term.Seconds(pause), afterKill, back)
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
	return outcome(planned == 0 || whole), evidence
}

// unhealed reports whether the log says of a fault that the cluster did not get over it.
func (j *judgement) unhealed() bool {
	return slices.ContainsFunc(j.faults, func(f fault) bool { return f.unhealed })
}

// faultCount tells of the faults, and whether all that were planned were made and survived.
func (j *judgement) faultCount(planned int) (evidence string, whole bool) {
	count := map[string]int{}
	made, healed := 0, 0
	for _, f := range j.faults {
		count[f.kind]++
		if f.made() {
			made++
			if f.healed {
				healed++
			}
		}
	}
	evidence = term.Plural(len(j.faults), "fault")
	if planned == 0 {
		return evidence, false
	}
	var words []string
	for _, kind := range []struct{ event, noun string }{{EventKill, "kill"}, {EventPause, "pause"}, {EventStop, "restart"}} {
		if n := count[kind.event]; n > 0 {
			words = append(words, term.Plural(n, kind.noun))
		}
	}
	evidence = fmt.Sprintf("survived %d of %s", healed, term.Plural(planned, "fault"))
	if len(words) > 0 {
		evidence += " (" + strings.Join(words, ", ") + ")"
	}
	if seen := len(j.faults) - made; seen > 0 {
		evidence += fmt.Sprintf(" and %s more that nobody made", term.Plural(seen, "fault"))
	}
	return evidence, made == planned && healed == planned
}

// readBack tells of the images read after the run, and whether none of them was other than what was sent. An
// image that came back with other bytes, or was not there, stays in the log when all are read once more.
func (l *Log) readBack() (evidence string, same bool) {
	var b Readback
	if l.back != nil {
		b = *l.back
	}
	b.Mismatched = max(b.Mismatched, l.happened(EventImageMismatched))
	b.Missing = max(b.Missing, l.happened(EventImageMissing))
	if l.back == nil && b.wrong() == 0 {
		return "no image read back", true
	}
	b.Images = max(b.Images, b.Matched+b.wrong())
	evidence = fmt.Sprintf("%d of %s read back and the same", b.Matched, term.Plural(b.Images, "image"))
	for _, bad := range []struct {
		n    int64
		what string
	}{{b.Mismatched, "with other bytes"}, {b.Missing, "missing"}, {b.Unread, "unreadable"}} {
		if bad.n > 0 {
			evidence += fmt.Sprintf(", %d %s", bad.n, bad.what)
		}
	}
	return evidence, b.wrong() == 0
}

// happened counts the events of a kind.
func (l *Log) happened(kind string) (n int64) {
	for _, e := range l.events {
		if l.kinds.list[e.kind] == kind {
			n++
		}
	}
	return n
}

// longestPause returns the longest time without a success that touches such a fault or the
// faultWindowS after it, up to the next fault. It goes to the end of the last upload when those after it all
// failed. Time in which no upload could begin does not count.
func (j *judgement) longestPause(of func(fault) bool) (longest float64) {
	finished := append(slices.Clip(j.finished), j.log.lastUpload())
	for k, f := range j.faults {
		if !of(f) {
			continue
		}
		end := f.t + faultWindowS
		if k+1 < len(j.faults) {
			end = min(end, j.faults[k+1].t)
		}
		i, _ := slices.BinarySearch(finished, f.t)
		for i = max(i, 1); i < len(finished) && finished[i-1] <= end; i++ {
			longest = max(longest, underLoad(j.held, finished[i-1], finished[i]))
		}
	}
	return longest
}
