// Package render writes Reports: as text for a terminal, JSON, CSV, Markdown, or a page of HTML. It sees the figures of
// a Report and nothing of the log.
package render

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"imgcluster/cluster/printable"
	"imgcluster/modes/report"
	"imgcluster/modes/term"
)

// Reports are those of one or several logs, which are shown together.
type Reports []*report.Report

// WriteText writes the reports one after the other, and a table of all when there are several.
func (rs Reports) WriteText(w io.Writer, opts TextOptions) error {
	for _, r := range rs {
		if len(rs) > 1 {
			if _, err := fmt.Fprintf(w, "== %s\n", printable.Text(r.Log)); err != nil {
				return fmt.Errorf("writing the report: %w", err)
			}
		}
		if err := (shown{r}).writeText(w, opts); err != nil {
			return err
		}
		if len(rs) > 1 {
			fmt.Fprintln(w) // what follows fails too
		}
	}
	if len(rs) < 2 {
		return nil
	}
	p := newPage(opts)
	p.table(rs.table())
	return p.writeTo(w)
}

// table sums up several reports.
func (rs Reports) table() table {
	t := table{
		id: "runs", title: "All runs", left: 1,
		head: []string{"log", "verdict", "uploads", "failed", "per s", "p50 s", "p99 s", "stddev"},
	}
	for _, r := range rs {
		t.rows = append(t.rows, []string{
			r.Log, r.Verdict.Word(), fmt.Sprint(r.Attempted), fmt.Sprint(r.Failed),
			term.Digits3(r.ThroughputPerS), term.Seconds(r.LatencyS.P50), term.Seconds(r.LatencyS.P99),
			fmt.Sprintf("%.2f %%", r.Balance.StddevPercent),
		})
	}
	return t
}

// WriteJSON writes one report as an indented JSON object, several as {"reports":[{"log":"...",...}]}.
func (rs Reports) WriteJSON(w io.Writer) error {
	if len(rs) == 1 {
		return writeJSON(w, rs[0])
	}
	type named struct {
		Log string `json:"log"`
		*report.Report
	}
	all := struct {
		Reports []named `json:"reports"`
	}{}
	for _, r := range rs {
		all.Reports = append(all.Reports, named{r.Log, r})
	}
	return writeJSON(w, all)
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(printable.Writer(w))
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// WriteCSV writes a figure a line: the log, the part of the report, what in it, the figure and its
// value. The parts are those of the JSON form, and time: stretches of the run by their start in seconds.
func (rs Reports) WriteCSV(w io.Writer) error {
	c := csv.NewWriter(w)
	rows := [][]string{{"log", "part", "item", "figure", "value"}}
	for _, r := range rs {
		rows = append(rows, shown{r}.csvRows()...)
	}
	if err := c.WriteAll(rows); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// csvRows takes the JSON form apart, so that both have the same figures and names.
func (r shown) csvRows() (rows [][]string) {
	add := func(part, item, figure, value string) {
		if strings.HasPrefix(value, "=") || strings.HasPrefix(value, "@") {
			value = "'" + value // a spreadsheet would take it for a formula
		}
		rows = append(rows, []string{
			printable.Text(r.Log), part, printable.Text(item), figure,
			printable.Text(value),
		})
	}
	b, err := json.Marshal(r)
	var object map[string]any
	if err == nil {
		d := json.NewDecoder(strings.NewReader(string(b)))
		d.UseNumber()
		err = d.Decode(&object)
	}
	if err != nil {
		return nil // the figures are numbers and texts: cannot be
	}
	var walk func(part, item, figure string, v any)
	walk = func(part, item, figure string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, key := range slices.Sorted(maps.Keys(v)) {
				walk(part, item, strings.TrimPrefix(figure+"."+key, "."), v[key])
			}
		case []any:
			for i, one := range v {
				name, rest := itemOf(one, i)
				walk(part, strings.TrimPrefix(item+"."+name, "."), figure, rest)
			}
		case nil:
		default:
			add(part, item, figure, fmt.Sprint(v))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		switch object[key].(type) {
		case map[string]any, []any:
			walk(key, "", "", object[key])
		default:
			walk("run", "", key, object[key])
		}
	}
	t := &r.Charts.Time
	for i, s := range t.Uploads {
		from, to, ok := t.Bounds(i)
		if !ok {
			continue
		}
		at := strconv.FormatFloat(rounded(from, 6), 'f', -1, 64)
		add("time", at, "uploads_per_s", fmt.Sprintf("%g", rounded(float64(s.Done)/(to-from), 6)))
		add("time", at, "bytes_per_s", fmt.Sprintf("%g", rounded(float64(s.Bytes)/(to-from), 6)))
		add("time", at, "failed", fmt.Sprint(s.Failed))
		if !math.IsNaN(s.P50S) {
			add("time", at, "p50_s", fmt.Sprintf("%g", s.P50S))
			add("time", at, "p99_s", fmt.Sprintf("%g", s.P99S))
		}
	}
	return rows
}

// itemOf names an entry of a list by what tells it from the others, and returns the rest of it.
func itemOf(v any, at int) (name string, rest any) {
	object, ok := v.(map[string]any)
	if !ok {
		return fmt.Sprint(at + 1), v
	}
	for _, key := range []string{"id", "class", "name", "error"} {
		if s := fmt.Sprint(object[key]); object[key] != nil && s != "" {
			delete(object, key)
			return s, object
		}
	}
	return fmt.Sprint(at + 1), object
}

// WriteMarkdown writes the reports as Markdown with tables.
func (rs Reports) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	for _, r := range rs {
		shown{r}.markdown(&b)
	}
	if len(rs) > 1 {
		markdownTable(&b, rs.table())
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

func (r shown) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "# %s\n\n**%s**\n\n", markdownText(cmp.Or(r.Log, "Stress run")),
		markdownText(r.Verdict.Text))
	for _, n := range r.Notes {
		fmt.Fprintf(b, "- %s\n", markdownText(n))
	}
	if len(r.Notes) > 0 {
		b.WriteByte('\n')
	}
	if n := r.Bottleneck; n != nil {
		fmt.Fprintf(b, "Limited by %s: %s. To try: %s.\n\n", markdownText(n.What), markdownText(n.Evidence),
			markdownText(n.Try))
	}
	figures := table{title: "Figures", left: 1, head: []string{"figure", "value"}}
	for _, t := range r.tiles() {
		figures.rows = append(figures.rows, []string{t.Name, t.Value + " " + t.Unit + " (" + t.More + ")"})
	}
	figures.left = 2
	markdownTable(b, figures)
	if c := r.Comparison; c != nil {
		markdownTable(b, figureTable(c))
		fmt.Fprintf(b, "Test: %s; beyond noise below %g.\n\n", c.Test, c.Alpha)
		markdownTable(b, settingTable(c))
	}
	for _, t := range []table{
		r.shareTable(), r.latencyTable(), r.classTable(), r.usageTable(), r.checkTable(), r.resourceTable(),
		r.failureTable(), r.eventTable(), r.limitTable(), r.runTable(),
	} {
		markdownTable(b, t)
	}
}

func markdownTable(b *strings.Builder, t table) {
	if len(t.rows) == 0 {
		return
	}
	fmt.Fprintf(b, "## %s\n\n|", markdownText(t.title))
	for _, h := range t.head {
		fmt.Fprintf(b, " %s |", markdownText(h))
	}
	b.WriteString("\n|")
	for i := range t.head {
		if i < t.left {
			b.WriteString(" :-- |")
		} else {
			b.WriteString(" --: |")
		}
	}
	for _, row := range t.rows {
		b.WriteString("\n|")
		for _, s := range row {
			fmt.Fprintf(b, " %s |", markdownText(s))
		}
	}
	b.WriteString("\n\n")
}

// markdownText keeps a log's words from being taken for marks.
var markdownEscapes = strings.NewReplacer("\\", "\\\\", "|", "\\|", "<", "&lt;", "*", "\\*", "_", "\\_", "`",
	"\\`", "[", "\\[", "]", "\\]", "#", "\\#")

func markdownText(s string) string { return markdownEscapes.Replace(printable.Text(s)) }

func sortedKeys(m map[string]float64) []string { return slices.Sorted(maps.Keys(m)) }

// shown is a report that is rendered.
type shown struct{ *report.Report }
