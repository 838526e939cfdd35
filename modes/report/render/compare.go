package render

import (
	"fmt"

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
		this, other := fmt.Sprintf("%g", rounded(f.This, 3)), fmt.Sprintf("%g", rounded(f.Other, 3))
		t.rows = append(t.rows, []string{f.Name, this, other, f.Unit, change, p, outcomeWords[f.Outcome]})
	}
	return t
}

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

// compareCharts draws both runs into one chart each.
func (r shown) compareCharts(prefix string) (list []chart) {
	add := func(c chart, ok bool) {
		if ok {
			list = append(list, c)
		}
	}
	c := r.Comparison
	this, other := &r.Charts, &c.OtherCharts
	add(draw(prefix+"compare-throughput", "Throughput of both", inUnit("uploads/s"), []plotted{
		perSecond(&this.Time, "this", 0, true, this.Time.Uploads, done),
		perSecond(&other.Time, "other", 1, false, other.Time.Uploads, done),
	}, newTimeAxis(max(r.ElapsedS, c.OtherElapsedS))))
	var uploads []report.Distribution
	for i, distributions := range [][]report.Distribution{this.Latency, other.Latency} {
		if len(distributions) > 0 {
			d := distributions[0]
			d.Name = []string{"this", "other"}[i]
			uploads = append(uploads, d)
		}
	}
	lines, nines := distributions(uploads)
	add(draw(prefix+"compare-latency", "Latency distribution of both", inSeconds, lines, nines))
	return list
}
