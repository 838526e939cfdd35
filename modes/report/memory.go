package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"imgcluster/modes/runlog"
	"imgcluster/modes/term"
)

// When growth of memory counts as one that does not end.
const (
	memoryWarmup   = 1.0 / 3 // of a process's samples, from the first: memory may still fill up
	memorySpanMin  = 60.0    // seconds after that; in less, filling up cannot be told from growing for ever
	memoryEndShare = 0.5     // of the slope, that the last third still has: what fills up slows down
)

// process is one process's memory over time.
type process struct {
	name   string
	points []Point
	limit  int64
	lost   bool // was gone for a time: what it has then is not what it had
}

// memoryStable asks every node and the client for a peak below the limit and no lasting growth: a slope, by
// Theil and Sen, whose whole confidence interval means more than the limit over the run, and that goes on to
// its end.
func (j *judgement) memoryStable() (Status, string) {
	list, unseen := j.processes()
	if j.log.unnamed() {
		return Skipped, skippedNodes
	}
	if len(list) == 0 || list[0].name == "client" {
		return Skipped, "no samples of the nodes' memory"
	}
	var peaks, trouble []string
	client, steepest := "", ""
	most := math.Inf(-1)
	for _, p := range list {
		peak := int64(0)
		for _, s := range p.points {
			peak = max(peak, int64(s.V))
		}
		key := strings.ReplaceAll(p.name, " ", "_")
		j.figure(key+"_peak_bytes", float64(peak))
		if p.name == "client" {
			client = fmt.Sprintf("; client's %s of %s MiB", term.MiB(float64(peak)),
				term.MiB(float64(p.limit)))
		} else {
			peaks = append(peaks, term.MiB(float64(peak)))
		}
		if peak >= p.limit {
			trouble = append(trouble, p.name+": over the limit")
		}
		t, ok := findTrend(p.points[int(float64(len(p.points))*memoryWarmup):])
		if !ok || p.lost {
			continue
		}
		j.figure(key+"_slope_bytes_per_s", t.slope)
		j.figure(key+"_slope_low_bytes_per_s", t.low)
		j.figure(key+"_slope_high_bytes_per_s", t.high)
		if t.slope > most {
			most = t.slope
			steepest = fmt.Sprintf("; steepest after the warm-up: %s, %s MiB/min, 95 %% interval %s to %s (Theil-Sen)", p.name, perMinute(t.slope), perMinute(t.low), perMinute(t.high))
		}
		if t.low*t.span > float64(j.limits.GrowthBytes) && p.goesOn(t) {
			trouble = append(trouble, fmt.Sprintf("%s: grew by %s MiB after its warm-up%s", p.name,
				term.MiB(t.slope*t.span), fullAfter(t, float64(peak), float64(p.limit))))
		}
	}
	evidence := fmt.Sprintf("nodes' peaks %s of %s MiB%s", strings.Join(peaks, ", "),
		term.MiB(float64(j.limits.NodeRSSBytes)), client) + steepest
	switch {
	case len(trouble) > 0:
		return Failed, evidence + "; " + strings.Join(trouble, "; ")
	case len(unseen) > 0:
		return Skipped, evidence + "; no samples of node " + strings.Join(unseen, ", ")
	case client == "":
		return Skipped, evidence + "; no samples of the client"
	}
	return Passed, evidence
}

// goesOn reports whether growth by that trend went on to the end.
func (p *process) goesOn(t trend) bool {
	end, ok := findTrend(p.points[2*len(p.points)/3:])
	return ok && t.span >= memorySpanMin && end.slope >= memoryEndShare*t.slope
}

// processes lists the nodes of the run that were sampled, and the client last.
func (j *judgement) processes() (list []process, unseen []string) {
	at := map[int][]Point{}
	for _, s := range j.log.Nodes {
		if s.Up && s.RSSBytes > 0 {
			at[s.ID] = append(at[s.ID], Point{s.TS, float64(s.RSSBytes)})
		}
	}
	for _, n := range j.members {
		p := process{name: fmt.Sprintf("node %d", n.ID), points: at[n.ID], limit: j.limits.NodeRSSBytes}
		p.lost = slices.ContainsFunc(j.faults, func(f runlog.Fault) bool { return f.Node == n.ID })
		if len(p.points) == 0 {
			unseen = append(unseen, fmt.Sprint(n.ID))
			continue
		}
		list = append(list, p)
	}
	client := process{name: "client", limit: j.limits.ClientRSSBytes, lost: j.log.resumed() > 0}
	for _, s := range j.log.Client {
		if s.RSSBytes > 0 {
			client.points = append(client.points, Point{s.TS, float64(s.RSSBytes)})
		}
	}
	if len(client.points) > 0 {
		list = append(list, client)
	}
	return list, unseen
}

func perMinute(bytesPerS float64) string { return fmt.Sprintf("%+.1f", bytesPerS*60/(1<<20)) }

// fullAfter tells when the process would be over its limit.
func fullAfter(t trend, now, limit float64) string {
	if now >= limit || t.slope <= 0 {
		return ""
	}
	return fmt.Sprintf(", over %s MiB after %s min more", term.MiB(limit),
		term.Digits3((limit-now)/t.slope/60))
}
