package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"imgcluster/modes/runlog"
	"imgcluster/modes/term"
)

// Setting is one thing of how a run was made.
type Setting struct{ Name, Value string }

// Settings returns how the run was made; nothing when the log does not say.
func (r *Report) Settings() (list []Setting) {
	if r.Run == nil {
		return nil
	}
	add := func(when bool, name, format string, args ...any) {
		if when {
			list = append(list, Setting{name, fmt.Sprintf(format, args...)})
		}
	}
	run := r.Run
	add(!run.Started.IsZero(), "started", "%s", run.Started.UTC().Format("2006-01-02 15:04:05 UTC"))
	add(run.Version != "", "version", "%s", run.Version)
	add(run.Profile != "", "profile", "%s", run.Profile)
	add(run.Count > 0, "uploads planned", "%d", run.Count)
	add(run.DurationS > 0, "duration", "%g s", run.DurationS)
	add(run.WarmupS > 0, "warm-up", "%g s", run.WarmupS)
	add(true, "load", "%s", r.Load())
	add(run.ReadPercent > 0, "reads", "%g %% of the operations", run.ReadPercent)
	add(run.Users > 1, "users", "%d", run.Users)
	add(true, "nodes", "%s", strings.Trim(fmt.Sprint(run.Nodes), "[]"))
	add(true, "replicas", "%d", run.Replicas)
	add(run.Delivery != "", "delivery", "%s", run.Delivery)
	add(run.Seed != 0, "seed", "%d", run.Seed)
	add(run.MinPixels+run.MaxPixels > 0, "pixels", "%d to %d", run.MinPixels, run.MaxPixels)
	add(run.Images != "", "images", "%s", run.Images)
	add(len(run.LeftOut) > 0, "left out of them", "%s", strings.Join(run.LeftOut, "; "))
	add(run.Faults > 0, "faults planned", "%d", run.Faults)
	for _, m := range append([]runlog.Host{run.Hosts.Client}, run.Hosts.Nodes...) {
		name := "client's machine"
		if m.ID > 0 {
			name = fmt.Sprintf("machine of node %d", m.ID)
		}
		add(m != (runlog.Host{}), name, "%s", machineWords(m))
	}
	for _, key := range slices.Sorted(maps.Keys(run.Settings)) {
		add(true, key, "%s", run.Settings[key])
	}
	return list
}

// Load says how the uploads came.
func (r *Report) Load() string {
	if r.Run.Rate > 0 {
		return fmt.Sprintf("%s/s, %s, at most %d at once", term.Digits3(r.Run.Rate),
			cmp.Or(r.Run.Arrivals, runlog.ArrivalsConstant), r.Run.Concurrency)
	}
	return fmt.Sprintf("%d at once", r.Run.Concurrency)
}

func machineWords(m runlog.Host) string {
	var parts []string
	add := func(when bool, s string) {
		if when {
			parts = append(parts, s)
		}
	}
	add(m.Name != "", m.Name)
	add(m.CPUs > 0, term.Plural(m.CPUs, "core"))
	add(m.MemoryBytes > 0, term.Bytes(m.MemoryBytes)+" of memory")
	add(m.LinkBytesPS > 0, "a link of "+term.Bytes(m.LinkBytesPS)+"/s")
	add(m.Version != "", m.Version)
	return strings.Join(parts, ", ")
}
