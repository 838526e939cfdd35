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

// table is a part of the report that all forms show alike. Figures stand right, the first left
// columns left.
type table struct {
	id, title string
	head      []string
	left      int
	rows      [][]string
}

// compact leaves out the columns in which nothing is said.
func (t table) compact() table {
	silent := func(i int) bool {
		return i >= t.left && !slices.ContainsFunc(t.rows, func(row []string) bool { return row[i] != "-" && row[i] != "0" })
	}
	for i := len(t.head) - 1; i >= 0; i-- {
		if !silent(i) {
			continue
		}
		t.head = slices.Delete(t.head, i, i+1)
		for at := range t.rows {
			t.rows[at] = slices.Delete(t.rows[at], i, i+1)
		}
	}
	return t
}

// latencyTable has a row for everything that a latency is known of.
func (r *Report) latencyTable() table {
	t := table{id: "latency", title: "Latency in seconds", left: 1, head: []string{"", "mean", "p50", "p90", "p95", "p99", "p99.9", "max"}}
	if r.Succeeded == 0 && r.Reads == nil {
		return t
	}
	add := func(name string, l *Latency) {
		if l != nil {
			t.rows = append(t.rows, []string{name, term.Seconds(l.Mean), term.Seconds(l.P50), term.Seconds(l.P90), term.Seconds(l.P95), term.Seconds(l.P99), term.Seconds(l.P999), term.Seconds(l.Max)})
		}
	}
	name := "uploads"
	if r.ServiceLatencyS != nil {
		name = "uploads, due"
	}
	add(name, &r.LatencyS)
	add("uploads, sent", r.ServiceLatencyS)
	if r.Reads != nil {
		name = "reads"
		if r.Reads.ServiceLatencyS != nil {
			name = "reads, due"
		}
		add(name, &r.Reads.LatencyS)
		add("reads, sent", r.Reads.ServiceLatencyS)
	}
	return t
}

func (r *Report) classTable() table {
	t := table{id: "classes", title: "Classes", left: 1, head: []string{"", "uploads", "failed", "bytes", "from", "to", "p50 s", "p95 s", "p99 s"}}
	for _, c := range r.Classes {
		l := c.LatencyS
		t.rows = append(t.rows, []string{
			cmp.Or(c.Class, "none"), fmt.Sprint(c.Uploads), fmt.Sprint(c.Failed), term.Bytes(c.Bytes), term.Bytes(c.MinBytes), term.Bytes(c.MaxBytes),
			term.Seconds(l.P50), term.Seconds(l.P95), term.Seconds(l.P99),
		})
	}
	return t.compact()
}

// shareTable lists what each node owned.
func (r *Report) shareTable() table {
	t := table{id: "owned", title: "Owned", left: 1, head: []string{"node", "uploads", "share", "bytes", "share of bytes"}}
	for _, n := range r.Nodes {
		t.rows = append(t.rows, []string{fmt.Sprint(n.ID), fmt.Sprint(n.Uploads), fmt.Sprintf("%.2f %%", n.SharePercent), term.Bytes(n.Bytes), fmt.Sprintf("%.2f %%", n.BytesSharePercent)})
	}
	return t
}

// usageTable lists what each process used; nothing when there were no samples.
func (r *Report) usageTable() table {
	t := table{id: "resources", title: "Used: memory at its peak, the rest on average", left: 1, head: []string{"", "memory", "cores", "in", "out", "written", "busy", "disk left"}}
	known := false
	add := func(name string, u Usage) {
		known = known || u.PeakRSSBytes > 0
		t.rows = append(t.rows, []string{
			name, term.MiB(float64(u.PeakRSSBytes)) + " MiB", term.Digits3(u.CPUCores), perS(u.NetRxBytesPerS), perS(u.NetTxBytesPerS), perS(u.DiskWrittenPerS),
			dashed(u.DiskBusyPercent > 0, fmt.Sprintf("%.0f %%", u.DiskBusyPercent)), dashed(u.DiskFreeBytes > 0, term.Bytes(u.DiskFreeBytes)),
		})
	}
	for _, n := range r.Nodes {
		add(fmt.Sprintf("node %d", n.ID), n.Usage)
	}
	if r.Client != nil {
		add("client", r.Client.Usage)
	}
	if !known {
		t.rows = nil
	}
	return t.compact()
}

func perS(v float64) string { return dashed(v > 0, term.Bytes(int64(v))+"/s") }

// dashed is s, or a dash when it is not known.
func dashed(known bool, s string) string {
	if !known {
		return "-"
	}
	return s
}

// failureTable lists why uploads and reads failed.
func (r *Report) failureTable() table {
	t := table{id: "failures", title: "Failures", left: 2, head: []string{"of", "reason", "times"}}
	add := func(what string, list []Failure) {
		for _, f := range list {
			t.rows = append(t.rows, []string{what, f.Error, fmt.Sprint(f.Uploads)})
		}
	}
	add("uploads", r.Failures)
	if r.Reads != nil {
		add("reads", r.Reads.Failures)
	}
	return t
}

func (r *Report) checkTable() table {
	t := table{id: "checks", title: "Checks", left: 3, head: []string{"check", "outcome", "evidence"}}
	for _, c := range r.Verdict.Checks {
		t.rows = append(t.rows, []string{c.Name, string(c.Status), c.Evidence})
	}
	return t
}

func (r *Report) eventTable() table {
	t := table{id: "events", title: "Events", left: 4, head: []string{"at", "event", "node", "detail"}}
	for _, e := range r.Events {
		t.rows = append(t.rows, []string{term.Seconds(e.TS) + " s", e.Kind, dashed(e.Node > 0, fmt.Sprint(e.Node)), e.Detail})
	}
	if r.EventsLeftOut > 0 {
		t.rows = append(t.rows, []string{"", fmt.Sprintf("and %d more", r.EventsLeftOut), "", ""})
	}
	return t
}

// resourceTable lists the resources by how much of them was used.
func (r *Report) resourceTable() table {
	t := table{id: "limits", title: "How busy", left: 1, head: []string{"what", "used"}}
	if r.Bottleneck == nil {
		return t
	}
	t.head, t.left = []string{"what", "used", "evidence"}, 3
	for _, u := range r.Bottleneck.Resources {
		t.rows = append(t.rows, []string{resourceName(u.Kind, u.Node), term.Percent(u.UsedPercent), u.Evidence})
	}
	return t
}

// limitTable lists what the checks asked for.
func (r *Report) limitTable() table {
	l := r.Limits
	f := func(v float64, unit string) string { return strings.TrimSpace(fmt.Sprintf("%g %s", v, unit)) }
	return table{id: "asked", title: "What the checks ask for", left: 1, head: []string{"limit", "value"}, rows: [][]string{
		{"standard deviation of the shares, at most", f(l.StddevPercent, "%")},
		{"success, at least", f(l.SuccessPercent, "%")},
		{"latency p99, at most", f(l.P99S, "s")},
		{"throughput, at least", f(l.ThroughputPerS, "uploads/s")},
		{"slowdown, at most", f(l.SlowdownPercent, "%")},
		{"memory of a node, at most", term.MiB(float64(l.NodeRSSBytes)) + " MiB"},
		{"memory of the client, at most", term.MiB(float64(l.ClientRSSBytes)) + " MiB"},
		{"growth of memory, at most", term.MiB(float64(l.GrowthBytes)) + " MiB"},
		{"bytes sent again, at most", f(l.ResentPercent, "%")},
		{"p of the chi-square tests, at least", f(l.HashP, "")},
		{"first choices, at least", f(l.FirstChoicePercent, "%")},
		{"pause around a fault, at most", f(l.PauseS, "s")},
	}}
}

// runTable is the configuration of the run.
func (r *Report) runTable() table {
	t := table{id: "configuration", title: "Configuration", left: 2, head: []string{"setting", "value"}}
	if r.Run == nil {
		return t
	}
	add := func(when bool, name, format string, args ...any) {
		if when {
			t.rows = append(t.rows, []string{name, fmt.Sprintf(format, args...)})
		}
	}
	run := r.Run
	add(!run.Started.IsZero(), "started", "%s", run.Started.UTC().Format("2006-01-02 15:04:05 UTC"))
	add(run.Version != "", "version", "%s", run.Version)
	add(run.Profile != "", "profile", "%s", run.Profile)
	add(run.Count > 0, "uploads planned", "%d", run.Count)
	add(run.DurationS > 0, "duration", "%g s", run.DurationS)
	add(run.WarmupS > 0, "warm-up", "%g s", run.WarmupS)
	add(true, "load", "%s", loadOf(run))
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
	for _, m := range append([]runlog.Machine{run.Machines.Client}, run.Machines.Nodes...) {
		name := "client's machine"
		if m.ID > 0 {
			name = fmt.Sprintf("machine of node %d", m.ID)
		}
		add(m != (runlog.Machine{}), name, "%s", machineWords(m))
	}
	for _, key := range slices.Sorted(maps.Keys(run.Settings)) {
		add(true, key, "%s", run.Settings[key])
	}
	return t
}

// loadOf says how the uploads came.
func loadOf(r *runlog.Run) string {
	if r.Rate > 0 {
		return fmt.Sprintf("%s/s, %s, at most %d at once", term.Digits3(r.Rate), cmp.Or(r.Arrivals, runlog.ArrivalsConstant), r.Concurrency)
	}
	return fmt.Sprintf("%d at once", r.Concurrency)
}

func machineWords(m runlog.Machine) string {
	var parts []string
	add := func(when bool, s string) {
		if when {
			parts = append(parts, s)
		}
	}
	add(m.Host != "", m.Host)
	add(m.CPUs > 0, term.Plural(m.CPUs, "core"))
	add(m.MemoryBytes > 0, term.Bytes(m.MemoryBytes)+" of memory")
	add(m.LinkBytesPS > 0, "a link of "+term.Bytes(m.LinkBytesPS)+"/s")
	add(m.Version != "", m.Version)
	return strings.Join(parts, ", ")
}

// Words says how busy the client was.
func (c *Client) Words() string {
	parts := []string{term.Digits3(c.CPUCores) + " cores"}
	add := func(known bool, s string) {
		if known {
			parts = append(parts, s)
		}
	}
	add(c.CPUPercent > 0, term.Percent(c.CPUPercent)+" of its machine's CPUs")
	add(c.SourcePercent > 0, term.Percent(c.SourcePercent)+" of its workers' time making images")
	add(c.InFlight > 0, term.Digits3(c.InFlight)+" operations at once")
	add(c.LateMaxS > 0, "at most "+term.Seconds(c.LateMaxS)+" s behind its schedule")
	add(c.LinkPercent > 0, term.Percent(c.LinkPercent)+" of its link")
	return "busy with " + strings.Join(parts, ", ")
}
