package render

import (
	"fmt"
	"slices"

	"imgcluster/cluster/printable"
	"imgcluster/modes/report"
)

func figureTable(c *report.Comparison) table {
	t := table{
		id: "comparison", title: "Compared with " + printable.Text(c.Other), left: 1,
		head: []string{"", "this", "other", "unit", "change", "p", "outcome"},
	}
	for _, f := range c.Figures {
		p := "-"
		if f.P != nil {
			p = fmt.Sprintf("%.3f", *f.P)
			if *f.P < 0.0005 {
				p = "<0.001"
			}
		}
		change := "-"
		if f.Other != 0 {
			change = fmt.Sprintf("%+.1f %%", f.ChangePercent)
		}
		t.rows = append(t.rows, []string{
			f.Name, plain3(f.This), plain3(f.Other), f.Unit, change, p,
			outcomeWords[f.Outcome],
		})
	}
	return t
}

// plain3 writes three significant digits.
func plain3(v float64) string { return fmt.Sprintf("%g", rounded(v, 3)) }

var outcomeWords = map[string]string{
	report.Better: "better", report.Worse: "worse",
	report.Noise: "within noise", report.Untested: "not tested",
}

func settingTable(c *report.Comparison) table {
	t := table{
		id: "settings-compared", title: "Settings that differ", left: 3,
		head: []string{"setting", "this", "other"},
	}
	for _, s := range c.Settings {
		t.rows = append(t.rows, []string{s.Name, s.This, s.Other})
	}
	return t
}

// compareCharts draws both runs into one.
func (r shown) compareCharts(prefix string) (list []chart) {
	c := r.Comparison
	done := func(s report.Bucket) float64 { return float64(s.Done) }
	axis := newTimeAxis(max(r.ElapsedS, c.OtherElapsedS))
	if one, ok := draw(prefix+"compare-throughput", "Throughput of both", inUnit("uploads/s"), []plotted{
		rate(&r.Charts.Time, "this", 0, true, r.Charts.Time.Uploads, done),
		rate(&c.OtherCharts.Time, "other", 1, false, c.OtherCharts.Time.Uploads, done),
	}, axis); ok {
		list = append(list, one)
	}
	var lines []plotted
	nines := 1.0
	for i, q := range slices.Concat(r.Charts.Latency[:min(1, len(r.Charts.Latency))],
		c.OtherCharts.Latency[:min(1, len(c.OtherCharts.Latency))]) {
		lines = append(lines, plotted{name: []string{"this", "other"}[i], style: i, points: q.Points})
		nines = max(nines, q.Points[len(q.Points)-1].T)
	}
	if one, ok := draw(prefix+"compare-latency", "Latency distribution of both", inSeconds, lines,
		ninesAxis(nines)); ok {
		list = append(list, one)
	}
	return list
}
