// Package render writes Reports: as text for a terminal, JSON, CSV, Markdown, or a page of HTML. It sees the
// figures of a Report and nothing of the log.
package render

import (
	"bytes"
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

// Reports are the reports of one log or of several, which are shown together.
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
	l := newLayout(opts)
	l.table(rs.table())
	return l.writeTo(w)
}

// table has a row for each report.
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

// WriteCSV writes a figure a line: the log, the part of the report, the item in that part, the figure and its
// value. The parts are those of the JSON form, and time: the run cut up, each piece by its start in seconds.
func (rs Reports) WriteCSV(w io.Writer) error {
	c := csv.NewWriter(w)
	rows := [][]string{{"log", "part", "item", "figure", "value"}}
	for _, r := range rs {
		one := csvRows{log: printable.Text(r.Log), rows: rows}
		if err := one.addReport(r); err != nil {
			return err
		}
		one.addTimeline(&r.Charts.Time)
		rows = one.rows
	}
	if err := c.WriteAll(rows); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// csvRows are the lines of a log.
type csvRows struct {
	log  string
	rows [][]string
}

func (c *csvRows) add(part, item, figure, value string) {
	if strings.HasPrefix(value, "=") || strings.HasPrefix(value, "@") {
		value = "'" + value // a spreadsheet would take it for a formula
	}
	c.rows = append(c.rows, []string{c.log, part, printable.Text(item), figure, printable.Text(value)})
}

// addReport takes the JSON form apart, so that both have the same figures and names.
func (c *csvRows) addReport(r *report.Report) error {
	var b bytes.Buffer
	if err := writeJSON(&b, r); err != nil {
		return err
	}
	var parts map[string]any
	d := json.NewDecoder(&b)
	d.UseNumber()
	if err := d.Decode(&parts); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	for _, part := range slices.Sorted(maps.Keys(parts)) {
		switch v := parts[part].(type) {
		case map[string]any, []any:
			c.addValue(part, "", "", v)
		default:
			c.addValue("run", "", part, v)
		}
	}
	return nil
}

// addValue adds a value of the JSON form: an object's fields as figures, a list's entries as items.
func (c *csvRows) addValue(part, item, figure string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			c.addValue(part, item, strings.TrimPrefix(figure+"."+key, "."), v[key])
		}
	case []any:
		for i, entry := range v {
			name, rest := itemOf(entry, i)
			c.addValue(part, strings.TrimPrefix(item+"."+name, "."), figure, rest)
		}
	case nil:
	default:
		c.add(part, item, figure, fmt.Sprint(v))
	}
}

func (c *csvRows) addTimeline(t *report.Timeline) {
	for i, b := range t.Uploads {
		from, to, ok := t.Bounds(i)
		if !ok {
			continue
		}
		at := strconv.FormatFloat(rounded(from, 6), 'f', -1, 64)
		add := func(figure string, v float64) { c.add("time", at, figure, fmt.Sprintf("%g", v)) }
		add("uploads_per_s", rounded(float64(b.Done)/(to-from), 6))
		add("bytes_per_s", rounded(float64(b.Bytes)/(to-from), 6))
		add("failed", float64(b.Failed))
		if !math.IsNaN(b.P50S) {
			add("p50_s", b.P50S)
			add("p99_s", b.P99S)
		}
	}
}

// itemOf returns the name of entry i of a list, by which it differs from the others, and the rest of it.
func itemOf(entry any, i int) (name string, rest any) {
	object, ok := entry.(map[string]any)
	if !ok {
		return fmt.Sprint(i + 1), entry
	}
	for _, key := range []string{"id", "class", "name", "error"} {
		if s := fmt.Sprint(object[key]); object[key] != nil && s != "" {
			delete(object, key)
			return s, object
		}
	}
	return fmt.Sprint(i + 1), object
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
	title := cmp.Or(r.Log, "Stress run")
	fmt.Fprintf(b, "# %s\n\n**%s**\n\n", markdownText(title), markdownText(r.Verdict.Text))
	for _, n := range r.Notes {
		fmt.Fprintf(b, "- %s\n", markdownText(n))
	}
	if len(r.Notes) > 0 {
		b.WriteByte('\n')
	}
	if n := r.Bottleneck; n != nil {
		fmt.Fprintf(b, "Limited by %s: %s. To try: %s.\n\n",
			markdownText(n.What), markdownText(n.Evidence), markdownText(n.Try))
	}
	figures := table{title: "Figures", left: 2, head: []string{"figure", "value"}}
	for _, t := range r.tiles() {
		figures.rows = append(figures.rows, []string{t.Name, t.Value + " " + t.Unit + " (" + t.More + ")"})
	}
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
	b.WriteString(strings.Repeat(" :-- |", t.left))
	b.WriteString(strings.Repeat(" --: |", len(t.head)-t.left))
	for _, row := range t.rows {
		b.WriteString("\n|")
		for _, s := range row {
			fmt.Fprintf(b, " %s |", markdownText(s))
		}
	}
	b.WriteString("\n\n")
}

var markdownEscapes = strings.NewReplacer(
	`\`, `\\`, `|`, `\|`, `<`, `&lt;`, `*`, `\*`, `_`, `\_`, "`", "\\`", `[`, `\[`, `]`, `\]`, `#`, `\#`)

// markdownText escapes what Markdown would take for marks.
func markdownText(s string) string { return markdownEscapes.Replace(printable.Text(s)) }

// shown is a report, with how its parts are shown.
type shown struct{ *report.Report }
