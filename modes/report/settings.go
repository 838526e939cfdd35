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

// Setting is something that was set for a run.
type Setting struct{ Name, Value string }

// Settings returns how the run was made; nothing when the log has no run record.
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
	for _, host := range append([]runlog.Host{run.Hosts.Client}, run.Hosts.Nodes...) {
		name := "client's machine"
		if host.ID > 0 {
			name = fmt.Sprintf("machine of node %d", host.ID)
		}
		add(host != (runlog.Host{}), name, "%s", hostWords(host))
	}
	for _, key := range slices.Sorted(maps.Keys(run.Settings)) {
		add(true, key, "%s", run.Settings[key])
	}
	return list
}

// Load returns how the operations were started: at a rate, or so many at once.
func (r *Report) Load() string {
	if r.Run.Rate > 0 {
		return fmt.Sprintf("%s/s, %s, at most %d at once", term.Digits3(r.Run.Rate),
			cmp.Or(r.Run.Arrivals, runlog.ArrivalsConstant), r.Run.Concurrency)
	}
	return fmt.Sprintf("%d at once", r.Run.Concurrency)
}

func hostWords(host runlog.Host) string {
	var parts []string
	add := func(known bool, s string) {
		if known {
			parts = append(parts, s)
		}
	}
	add(host.Name != "", host.Name)
	add(host.CPUs > 0, term.Plural(host.CPUs, "core"))
	add(host.MemoryBytes > 0, term.Bytes(host.MemoryBytes)+" of memory")
	add(host.LinkBytesPS > 0, "a link of "+perSecond(float64(host.LinkBytesPS)))
	add(host.Version != "", host.Version)
	return strings.Join(parts, ", ")
}
