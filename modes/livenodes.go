package modes

import (
	"fmt"

	"imgcluster/cluster/sample"
	"imgcluster/modes/stress"
	"imgcluster/modes/term"
)

// figureWidths are the widths of figures on the screen: as they are, and of counters, whose rate is shown.
var figureWidths = map[sample.Unit][2]int{
	sample.Bytes:   {8, 10},
	sample.Seconds: {8, 6},
	sample.Count:   {8, 10},
}

// figureText returns a figure in its unit. Of a counter v is the rate, which in seconds a second is a
// percentage.
func figureText(f sample.Figure, v float64) string {
	switch unit := f.Unit(); {
	case unit == sample.Bytes && f.Counter:
		return bytesPerSecond(v)
	case unit == sample.Bytes:
		return term.Bytes(int64(v))
	case unit == sample.Seconds && f.Counter:
		return fmt.Sprintf("%.0f %%", 100*v)
	case unit == sample.Seconds:
		return term.Duration(v)
	case f.Counter:
		return fmt.Sprintf("%.1f/s", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// rate returns how much a counter grew a second between two moments; 0 when it did not, as after a restart.
func rate(before, last, beforeS, lastS float64) float64 {
	if lastS <= beforeS || last < before {
		return 0
	}
	return (last - before) / (lastS - beforeS)
}

// headings returns the columns of the table of nodes: the share of uploads, then the figures on the screen.
func headings() []term.Heading {
	all := []term.Heading{{Text: "share", Width: 7, Drop: 1}}
	for _, i := range sample.Nodes.OnScreen() {
		f := sample.Nodes[i]
		width := figureWidths[f.Unit()][0]
		if f.Counter {
			width = figureWidths[f.Unit()][1]
		}
		s := f.Screen
		all = append(all, term.Heading{Text: s.Head, Width: max(width, len(s.Head)), Drop: s.Drop})
	}
	return all
}

// nodeCells returns the cells of a node under headings. uploads is their sum over all nodes.
func nodeCells(n *stress.NodeFigures, uploads int64) []string {
	cells := []string{unknown}
	if uploads > 0 {
		cells[0] = fmt.Sprintf("%.1f %%", 100*float64(n.Uploads)/float64(uploads))
	}
	last := sample.Nodes.Values(&n.Last)
	before := sample.Nodes.Values(&n.Before)
	for _, i := range sample.Nodes.OnScreen() {
		f := sample.Nodes[i]
		v := last[i]
		switch {
		case f.Counter && n.Before.Up:
			v = rate(before[i], v, n.Before.TS, n.Last.TS)
		case f.Counter:
			v = 0
		}
		text := unknown
		if n.Last.Up {
			text = figureText(f, v)
		}
		cells = append(cells, text)
	}
	return cells
}

// stateWidth is the width of a node's state, "state" with two blanks around it.
const stateWidth = 7

// nodeTable returns a row for each node, with as many columns as there is room for.
func (f *figures) nodeTable(width int) []term.Row {
	idWidth := idWidth(f.Nodes)
	heads := headings()
	shown := term.FitHeadings(heads, width-idWidth-stateWidth)
	head := fmt.Sprintf("%-*s %-6s", idWidth, "node", "state")
	for _, i := range shown {
		head += fmt.Sprintf(" %*s", heads[i].Width, heads[i].Text)
	}
	rows := []term.Row{{{Text: head, Style: term.Dim}}}
	uploads := int64(0)
	for _, n := range f.Nodes {
		uploads += n.Uploads
	}
	for i := range f.Nodes {
		n := &f.Nodes[i]
		row := term.Row{{Text: fmt.Sprintf("%-*d ", idWidth, n.ID), Style: term.Bold}}
		switch {
		case n.Last.ID == 0:
			row.Add(term.Dim, "%-6s", unknown)
		case n.Last.Up:
			row.Add(term.Green, "%-6s", "up")
		default:
			row.Add(term.Red, "%-6s", "down")
		}
		cells := nodeCells(n, uploads)
		for _, i := range shown {
			row.Add(term.Plain, " %*s", heads[i].Width, cells[i])
		}
		rows = append(rows, row)
	}
	return rows
}

// idWidth returns the width of the first column: of the longest ID, or of "client".
func idWidth(nodes []stress.NodeFigures) int {
	width := len("client")
	for _, n := range nodes {
		width = max(width, len(fmt.Sprint(n.ID)))
	}
	return width
}

// clientRow returns the figures of this process.
func (f *figures) clientRow() term.Row {
	last := &f.Client.Last
	before := &f.Client.Before
	row := term.Row{{Text: fmt.Sprintf("%-*s ", idWidth(f.Nodes), "client"), Style: term.Bold}}
	if last.RSSBytes == 0 {
		return *row.Add(term.Plain, unknown)
	}
	cpu := 100 * rate(before.CPUS, last.CPUS, before.TS, last.TS)
	return *row.Add(term.Plain, "%s of memory, CPU %.0f %%, %s sent",
		term.Bytes(last.RSSBytes), cpu, term.Bytes(last.SentBytes))
}
