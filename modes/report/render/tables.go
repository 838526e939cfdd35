package render

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"imgcluster/cluster/sample"
	"imgcluster/modes/report"
	"imgcluster/modes/term"
)

// table is a part of the report that all forms show alike.
type table struct {
	id, title string
	head      []string
	left      int // so many columns, from the first, are aligned to the left; figures are aligned to the right
	rows      [][]string
}

// compact leaves out the columns in which all is 0 or not known.
func (t table) compact() table {
	empty := func(i int) bool {
		return i >= t.left && !slices.ContainsFunc(t.rows,
			func(row []string) bool { return row[i] != "-" && row[i] != "0" })
	}
	for i := len(t.head) - 1; i >= 0; i-- {
		if !empty(i) {
			continue
		}
		t.head = slices.Delete(t.head, i, i+1)
		for at := range t.rows {
			t.rows[at] = slices.Delete(t.rows[at], i, i+1)
		}
	}
	return t
}

// latencyTable has a row for uploads and for reads, from when they were due and from when they were sent.
func (r shown) latencyTable() table {
	t := table{
		id: "latency", title: "Latency in seconds", left: 1,
		head: []string{"", "mean", "p50", "p90", "p95", "p99", "p99.9", "max"},
	}
	if r.Succeeded == 0 && r.Reads == nil {
		return t
	}
	add := func(name string, l *report.Latency) {
		if l != nil {
			row := []string{name}
			for _, v := range []float64{l.Mean, l.P50, l.P90, l.P95, l.P99, l.P999, l.Max} {
				row = append(row, term.Seconds(v))
			}
			t.rows = append(t.rows, row)
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

func (r shown) classTable() table {
	t := table{
		id: "classes", title: "Classes", left: 1,
		head: []string{"", "uploads", "failed", "bytes", "from", "to", "p50 s", "p95 s", "p99 s"},
	}
	for _, c := range r.Classes {
		l := c.LatencyS
		t.rows = append(t.rows, []string{
			cmp.Or(c.Class, "none"), fmt.Sprint(c.Uploads), fmt.Sprint(c.Failed),
			term.Bytes(c.Bytes), term.Bytes(c.MinBytes), term.Bytes(c.MaxBytes),
			term.Seconds(l.P50), term.Seconds(l.P95), term.Seconds(l.P99),
		})
	}
	return t.compact()
}

// shareTable lists what each node owns.
func (r shown) shareTable() table {
	t := table{
		id: "owned", title: "Owned", left: 1,
		head: []string{"node", "uploads", "share", "bytes", "share of bytes"},
	}
	for _, n := range r.Nodes {
		t.rows = append(t.rows, []string{
			fmt.Sprint(n.ID),
			fmt.Sprint(n.Uploads), fmt.Sprintf("%.2f %%", n.SharePercent),
			term.Bytes(n.Bytes), fmt.Sprintf("%.2f %%", n.BytesSharePercent),
		})
	}
	return t
}

// usageTable lists what each process used; nothing when there were no samples.
func (r shown) usageTable() table {
	t := table{
		id: "resources", title: "Used: memory at its peak, the rest on average", left: 1,
		head: []string{""},
	}
	var columns sample.Figures
	for _, f := range sample.Processes {
		if f.Report.Column != "" {
			columns = append(columns, f)
			t.head = append(t.head, f.Report.Column)
		}
	}
	sampled := false
	add := func(name string, u report.Usage) {
		sampled = sampled || u.Of["rss_bytes"] > 0
		row := []string{name}
		for _, f := range columns {
			row = append(row, inScale(f.Report.Scale, u.Of[f.Name]))
		}
		t.rows = append(t.rows, row)
	}
	for _, n := range r.Nodes {
		add(fmt.Sprintf("node %d", n.ID), n.Usage)
	}
	if r.Client != nil {
		add("client", r.Client.Usage)
	}
	if !sampled {
		t.rows = nil
	}
	return t.compact()
}

// inScale writes the summary of a figure; a dash where 0 means that it is not known.
func inScale(s sample.Scale, v float64) string {
	switch s {
	case sample.InMiB:
		return term.MiB(v) + " MiB"
	case sample.InBytes:
		return dashed(v > 0, term.Bytes(int64(v)))
	case sample.BytesPerS:
		return dashed(v > 0, term.Bytes(int64(v))+"/s")
	case sample.PercentOfTime:
		return dashed(v > 0, fmt.Sprintf("%.0f %%", v))
	case sample.InSeconds:
		return dashed(v > 0, term.Duration(v))
	case sample.Cores:
		return term.Digits3(v)
	}
	return dashed(v > 0, fmt.Sprintf("%g", rounded(v, 3)))
}

// dashed returns s, or a dash when it is not known.
func dashed(known bool, s string) string {
	if !known {
		return "-"
	}
	return s
}

// failureTable lists the reasons why uploads and reads failed.
func (r shown) failureTable() table {
	t := table{id: "failures", title: "Failures", left: 2, head: []string{"of", "reason", "times"}}
	add := func(what string, list []report.Failure) {
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

func (r shown) checkTable() table {
	t := table{id: "checks", title: "Checks", left: 3, head: []string{"check", "outcome", "evidence"}}
	for _, c := range r.Verdict.Checks {
		t.rows = append(t.rows, []string{c.Name, string(c.Status), c.Evidence})
	}
	return t
}

func (r shown) eventTable() table {
	t := table{id: "events", title: "Events", left: 4, head: []string{"at", "event", "node", "detail"}}
	for _, e := range r.Events {
		node := dashed(e.Node > 0, fmt.Sprint(e.Node))
		t.rows = append(t.rows, []string{term.Seconds(e.TS) + " s", e.Kind, node, e.Detail})
	}
	if r.EventsLeftOut > 0 {
		t.rows = append(t.rows, []string{"", fmt.Sprintf("and %d more", r.EventsLeftOut), "", ""})
	}
	return t
}

// resourceTable lists the resources by how much of them was used.
func (r shown) resourceTable() table {
	t := table{id: "limits", title: "How busy", left: 3, head: []string{"what", "used", "evidence"}}
	if r.Bottleneck == nil {
		return t
	}
	for _, u := range r.Bottleneck.Resources {
		t.rows = append(t.rows, []string{u.Name(), term.Percent(u.UsedPercent), u.Evidence})
	}
	return t
}

// limitTable lists what the checks asked for.
func (r shown) limitTable() table {
	l := r.Limits
	f := func(v float64, unit string) string { return strings.TrimSpace(fmt.Sprintf("%g %s", v, unit)) }
	return table{
		id: "asked", title: "What the checks ask for", left: 1, head: []string{"limit", "value"},
		rows: [][]string{
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
		},
	}
}

// runTable lists how the run was made.
func (r shown) runTable() table {
	t := table{id: "configuration", title: "Configuration", left: 2, head: []string{"setting", "value"}}
	for _, s := range r.Settings() {
		t.rows = append(t.rows, []string{s.Name, s.Value})
	}
	return t
}
