//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// column is one of a table: a figure, and how it is written.
type column struct {
	figure, heading string
	text            func(v float64) string
}

func format(f string) func(float64) string {
	return func(v float64) string { return fmt.Sprintf(f, v) }
}

func mib(v float64) string { return fmt.Sprintf("%.0f", v/(1<<20)) }

// columns are those of the table of a run.
var columns = []column{
	{perSecond, "a second", format("%.1f")},
	{toBase, "to bare", format("%.2f")},
	{p50, "p50 ms", format("%.1f")},
	{p99, "p99 ms", format("%.1f")},
	{clientCPU, "client CPU ms", format("%.2f")},
	{nodesCPU, "nodes CPU ms", format("%.2f")},
	{cpuToPlain, "CPU to no TLS", format("%.2f")},
	{clientPeak, "client MiB", mib},
	{nodePeak, "a node MiB", mib},
	{nodesPeak, "nodes MiB", mib},
	{clientWire, "sent and got", format("%.3f")},
	{nodesWire, "between nodes", format("%.3f")},
	{diskPerByte, "on disk", format("%.3f")},
}

// table writes the medians as a Markdown table.
func (r *Run) table(w io.Writer) {
	rounds := len(r.Cells[0].Rounds)
	m := r.Machine
	fmt.Fprintf(w, "%s, commit %s, %s\n", r.Program, r.Commit, r.Date)
	fmt.Fprintf(w, "%s, %d cores, %s MiB, Linux %s, %s, load %.1f\n%s\n\n", m.CPU, m.Cores,
		mib(float64(m.Memory)), m.Kernel, m.Go, m.Load, r.Command)
	fmt.Fprintf(w, "Medians of %d rounds. CPU is for each image, memory at its peak; the last three columns "+
		"are bytes\nfor each byte of the images.\n\n", rounds)
	rows := [][]string{{"cell"}}
	for _, c := range columns {
		rows[0] = append(rows[0], c.heading)
	}
	for _, m := range r.Cells {
		row := []string{m.Name}
		for _, c := range columns {
			text := ""
			if v, ok := m.Median[c.figure]; ok {
				text = c.text(v)
			}
			row = append(row, text)
		}
		rows = append(rows, row)
	}
	markdown(w, rows)
}

// noiseRounds is how many rounds on each side can show a difference: all of one beyond all of the other,
// which happens by chance in one of 10 comparisons with 3 rounds each, one of 126 with 5.
const noiseRounds = 3

// ratio is a figure of a cell, new to old.
type ratio struct {
	cell, figure string
	value        float64
	beyondNoise  bool
}

// ratios compares the figures that both runs have.
func ratios(old, new Run) (all []ratio) {
	for i := range new.Cells {
		m := &new.Cells[i]
		was := old.find(m.Name)
		if was == nil {
			continue
		}
		for _, c := range columns {
			a, b := was.of(c.figure), m.of(c.figure)
			if len(a) == 0 || len(b) == 0 {
				continue
			}
			r := ratio{cell: m.Name, figure: c.figure, value: 1}
			if x, y := median(a), median(b); x != y {
				r.value = y / x
			}
			r.beyondNoise = min(len(a), len(b)) >= noiseRounds &&
				(slices.Min(a) > slices.Max(b) || slices.Max(a) < slices.Min(b))
			all = append(all, r)
		}
	}
	return all
}

// compare writes the ratios of two runs as a table, those beyond noise in bold.
func compare(w io.Writer, old, new Run) {
	fmt.Fprintf(w, "New to old; bold: every round of one beyond every round of the other (%d rounds each at "+
		"least). Where the bare cells differ, so did the machine.\n\n", noiseRounds)
	rows := [][]string{{"cell"}}
	for _, c := range columns {
		rows[0] = append(rows[0], c.heading)
	}
	for _, r := range ratios(old, new) {
		last := len(rows) - 1
		if rows[last][0] != r.cell {
			rows = append(rows, make([]string, len(columns)+1))
			last++
			rows[last][0] = r.cell
		}
		text := fmt.Sprintf("%.2f", r.value)
		if r.beyondNoise {
			text = "**" + text + "**"
		}
		rows[last][1+slices.IndexFunc(columns, func(c column) bool { return c.figure == r.figure })] = text
	}
	markdown(w, rows)
}

// markdown writes rows, the first of which has the headings, in aligned columns.
func markdown(w io.Writer, rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], len(cell))
		}
	}
	rule := make([]string, len(width))
	for i, n := range width {
		rule[i] = strings.Repeat("-", n)
	}
	for _, row := range slices.Insert(slices.Clone(rows), 1, rule) {
		var line strings.Builder
		for i, cell := range row {
			fmt.Fprintf(&line, "| %-*s ", width[i], cell)
		}
		fmt.Fprintln(w, line.String()+"|")
	}
}
