package runlog

import (
	"fmt"
	"strings"

	"imgcluster/modes/term"
)

// Missing says, for each part of a run, what was planned and the log has no evidence of; empty where nothing
// is missing. A run passes only when nothing is: that something did not fail is no evidence that it was done.
type Missing struct {
	Plan     string // what the run was to do
	Uploads  string
	Faults   string // with --chaos: that they were made, and the cluster recovered from them
	Readback string // of every acknowledged image
	Cleanup  string
	End      string
}

// String lists all that is missing; it is empty when nothing is.
func (m Missing) String() string {
	var parts []string
	for _, s := range []string{m.Plan, m.Uploads, m.Faults, m.Readback, m.Cleanup, m.End} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ", ")
}

// Missing compares what the run was to do with what the log says it did.
func (l *Log) Missing() (m Missing) {
	run := &l.Run
	switch {
	case !l.HasRun:
		m.Plan = "no run record to say what was planned"
	case run.Count == 0 && run.DurationS == 0:
		m.Plan = "nothing says how many uploads were planned"
	}
	m.Uploads = l.missingUploads()
	if run.FaultsPlanned() > 0 {
		m.Faults = l.missingFaults()
	}
	if run.Plan.Verify || run.FaultsPlanned() > 0 {
		m.Readback = l.missingReadback()
	}
	if run.Plan.Cleanup {
		m.Cleanup = l.missingCleanup()
	}
	if !l.Ended {
		m.End = "no end record"
	}
	return m
}

// FaultsPlanned returns the least number of faults that the run was to make itself; 0 without --chaos.
func (r *Run) FaultsPlanned() int {
	if r.Plan.Chaos {
		return max(r.Faults, 1)
	}
	return r.Faults
}

// missingUploads says how far the uploads came, when they did not come to their end. The last operations of
// an open loop are due some time before the end of its duration.
func (l *Log) missingUploads() string {
	run := &l.Run
	recorded := int64(len(l.Uploads) + l.Warmup.Uploads)
	early := 0.0
	if run.Rate > 0 {
		early = 1 / run.Rate
	}
	if run.Arrivals == ArrivalsPoisson {
		early *= arrivalGapsMax
	}
	end := l.LastS()
	if l.Ended {
		end = max(end, l.ElapsedS)
	}
	switch {
	case recorded < run.Count:
		return fmt.Sprintf("%d of %d planned uploads", recorded, run.Count)
	case end < run.DurationS-early:
		return fmt.Sprintf("%s s of %g s", term.Seconds(end), run.DurationS)
	case l.Unknown > 0:
		return l.Lacks()
	}
	return ""
}

// Lacks counts, in words, the records without an outcome or a kind.
func (l *Log) Lacks() string {
	if l.Unknown == 1 {
		return "1 record lacks its outcome or kind"
	}
	return fmt.Sprintf("%d records lack their outcome or kind", l.Unknown)
}

// arrivalGapsMax is how many times the mean a gap between two Poisson arrivals is at most, but for one in
// 20,000.
const arrivalGapsMax = 10

func (l *Log) missingFaults() string {
	made, open := 0, 0
	for _, f := range l.Faults() {
		if f.Made() {
			made++
			if !f.Healed && !f.Unhealed {
				open++
			}
		}
	}
	switch planned := l.Run.FaultsPlanned(); {
	case made < planned:
		return fmt.Sprintf("%d of %s", made, term.Plural(planned, "planned fault"))
	case open > 0:
		return "the recovery from " + term.Plural(open, "fault")
	}
	return ""
}

// missingReadback asks for every acknowledged image to have been read, with whatever result.
func (l *Log) missingReadback() string {
	if l.Readback == nil {
		return "no image read back"
	}
	images := max(l.Readback.Images, l.acknowledged())
	if read := l.Readback.Matched + l.Readback.Wrong(); read < images {
		return fmt.Sprintf("%d of %s read back", read, term.Plural(images, "image"))
	}
	return ""
}

func (l *Log) missingCleanup() string {
	if l.cleaned == nil {
		return "no image deleted"
	}
	deleted := l.cleaned.Images + l.cleaned.Missing
	images := max(deleted+l.cleaned.Failed, l.acknowledged())
	if deleted < images {
		return fmt.Sprintf("%d of %s deleted", deleted, term.Plural(images, "image"))
	}
	return ""
}

// acknowledged counts the uploads that succeeded, those of the warm-up included.
func (l *Log) acknowledged() (n int64) {
	for i := range l.Uploads {
		if l.Uploads[i].OK {
			n++
		}
	}
	for _, o := range l.Warmup.Owned {
		n += o.Images
	}
	return n
}

// Final says why a run with something missing cannot be resumed; it is empty when it can.
func (l *Log) Final() string {
	m := l.Missing()
	switch {
	case l.Run.Demo:
		return "is of a demo, which cannot be resumed: its cluster was removed"
	case m.Plan != "":
		return "does not say how the run was started"
	case l.Run.FaultsPlanned() > 0 && (m.Uploads != "" || m.Faults != ""):
		return "is of a run with faults, which cannot be resumed before all of them were made"
	case l.cleaning && (m.Uploads != "" || m.Readback != ""):
		return "is of a run whose images were deleted, which cannot be resumed"
	}
	return ""
}
