package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"imgcluster/modes/runlog"
	"imgcluster/modes/term"
)

// When growth of memory counts as lasting.
const (
	memoryWarmup     = 1.0 / 3 // of a process's samples, from the first: its memory may still fill up
	memorySecondsMin = 60.0    // seconds after that; in less, filling up cannot be told from lasting growth
	memoryEndShare   = 0.5     // of the slope, that the last third still has: memory that fills up slows down
)

// memoryOf is the memory of one process over time.
type memoryOf struct {
	process     int // node or clientID
	points      []Point
	limit       int64
	interrupted bool // it was not the same process all the time
}

// memoryStable asks every node and the client for a peak below the limit and no lasting growth: a slope, by
// Theil and Sen, whose whole confidence interval means more than the limit over the run, and that lasts to
// its end.
func (j *judgement) memoryStable() (Status, string) {
	list, unsampled := j.memory()
	if j.log.unnamed() {
		return Skipped, skippedNodes
	}
	if len(list) == 0 || list[0].process == clientID {
		return Skipped, "no samples of the nodes' memory"
	}
	var peaks, bad []string
	client, steepest := "", ""
	steepestSlope := math.Inf(-1)
	for _, m := range list {
		peak, limit := m.peak(), float64(m.limit)
		name := processName(m.process)
		key := strings.ReplaceAll(name, " ", "_")
		j.figure(key+"_peak_bytes", peak)
		if m.process == clientID {
			client = fmt.Sprintf("; client's %s of %s MiB", term.MiB(peak), term.MiB(limit))
		} else {
			peaks = append(peaks, term.MiB(peak))
		}
		if peak >= limit {
			bad = append(bad, name+": over the limit")
		}
		t, ok := m.trend()
		if !ok {
			continue
		}
		j.figure(key+"_slope_bytes_per_s", t.slope)
		j.figure(key+"_slope_low_bytes_per_s", t.low)
		j.figure(key+"_slope_high_bytes_per_s", t.high)
		j.figure(key+"_growth_bytes", t.slope*t.seconds)
		if t.slope > steepestSlope {
			steepestSlope = t.slope
			steepest = fmt.Sprintf("; steepest after the warm-up: %s, %s MiB/min, "+
				"95 %% interval %s to %s (Theil-Sen)",
				name, perMinute(t.slope), perMinute(t.low), perMinute(t.high))
		}
		if t.low*t.seconds > float64(j.limits.GrowthBytes) && m.lasts(t) {
			bad = append(bad, fmt.Sprintf("%s: grew by %s MiB after its warm-up%s",
				name, term.MiB(t.slope*t.seconds), fullAfter(t, peak, limit)))
		}
	}
	evidence := fmt.Sprintf("nodes' peaks %s of %s MiB%s%s", strings.Join(peaks, ", "),
		term.MiB(float64(j.limits.NodeRSSBytes)), client, steepest)
	switch {
	case len(bad) > 0:
		return Failed, evidence + "; " + strings.Join(bad, "; ")
	case len(unsampled) > 0:
		return Skipped, evidence + "; no samples of node " + strings.Join(unsampled, ", ")
	case client == "":
		return Skipped, evidence + "; no samples of the client"
	}
	return Passed, evidence
}

// peak returns the most memory that the process had.
func (m *memoryOf) peak() (peak float64) {
	for _, p := range m.points {
		peak = max(peak, p.V)
	}
	return peak
}

// trend returns the trend after the warm-up; false when there is none to find.
func (m *memoryOf) trend() (trend, bool) {
	if m.interrupted {
		return trend{}, false
	}
	return findTrend(m.points[int(float64(len(m.points))*memoryWarmup):])
}

// lasts reports whether growth by that trend lasted to the end.
func (m *memoryOf) lasts(t trend) bool {
	end, ok := findTrend(m.points[2*len(m.points)/3:])
	return ok && t.seconds >= memorySecondsMin && end.slope >= memoryEndShare*t.slope
}

// memory returns that of the run's nodes, and of the client last; unsampled are the nodes of which there is
// none.
func (j *judgement) memory() (list []memoryOf, unsampled []string) {
	at := map[int][]Point{}
	for _, s := range j.log.Nodes {
		if s.Up && s.RSSBytes > 0 {
			at[s.ID] = append(at[s.ID], Point{s.TS, float64(s.RSSBytes)})
		}
	}
	for _, n := range j.nodes {
		if len(at[n.ID]) == 0 {
			unsampled = append(unsampled, fmt.Sprint(n.ID))
			continue
		}
		list = append(list, memoryOf{
			process:     n.ID,
			points:      at[n.ID],
			limit:       j.limits.NodeRSSBytes,
			interrupted: slices.ContainsFunc(j.faults, func(f runlog.Fault) bool { return f.Node == n.ID }),
		})
	}
	client := memoryOf{
		process:     clientID,
		limit:       j.limits.ClientRSSBytes,
		interrupted: j.log.resumed() > 0,
	}
	for _, s := range j.log.Client {
		if s.RSSBytes > 0 {
			client.points = append(client.points, Point{s.TS, float64(s.RSSBytes)})
		}
	}
	if len(client.points) > 0 {
		list = append(list, client)
	}
	return list, unsampled
}

func perMinute(bytesPerS float64) string { return fmt.Sprintf("%+.1f", bytesPerS*60/(1<<20)) }

// fullAfter says in how many minutes the process would be over its limit; it is empty when it would never be.
func fullAfter(t trend, now, limit float64) string {
	if now >= limit || t.slope <= 0 {
		return ""
	}
	return fmt.Sprintf(", over %s MiB after %s min more", term.MiB(limit), term.Digits3((limit-now)/t.slope/60))
}
