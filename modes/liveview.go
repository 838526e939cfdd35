package modes

import (
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"imgcluster/cluster/printable"
	"imgcluster/modes/runlog"
	"imgcluster/modes/stress"
	"imgcluster/modes/term"
)

// view lays the figures of a run out on a screen of any size.
type view struct {
	f     *stress.Tally
	color bool

	mu    sync.Mutex
	phase string   // what is done beside or after the uploads
	notes []string // to be said again when the screen is gone
}

func (v *view) setPhase(text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.phase = text
}

func (v *view) addNote(text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.notes = append(v.notes, text)
	v.f.Note(text)
}

// last is what stays when the screen is gone.
func (v *view) last() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	lines := append(v.notes, figuresLine(v.f.Figures()))
	if v.phase != "" {
		lines = append(lines, v.phase)
	}
	return lines
}

// span is a text in one style; a row is made of spans. All characters of this program are one column
// wide.
type span struct {
	text  string
	style term.Style
}

type row []span

func (r *row) add(style term.Style, format string, args ...any) *row {
	*r = append(*r, span{fmt.Sprintf(format, args...), style})
	return r
}

// render cuts a row to a width.
func (r row) render(width int, color bool) string {
	var out strings.Builder
	for _, s := range r {
		text := term.Cut(printable.Text(s.text), width)
		width -= utf8.RuneCountInString(text)
		if color {
			text = term.Styled(s.style, text)
		}
		out.WriteString(text)
	}
	return strings.TrimRight(out.String(), " ")
}

// block is a group of rows; where there is little room, those of a higher number go first.
type block struct {
	rows  []row
	goes  int
	space bool // a blank line before it
}

// lines draws everything.
func (v *view) lines(width, height int) []string {
	v.mu.Lock()
	phase := v.phase
	v.mu.Unlock()
	return v.fit((&figures{v.f.Figures()}).blocks(width, phase), width, height)
}

// figures are laid out.
type figures struct{ stress.Figures }

// eventsShown is how many of the last ones are.
const eventsShown = 5

// blocks are all that can be shown.
func (f *figures) blocks(width int, phase string) []block {
	blocks := []block{
		{rows: []row{f.title(width)}},
		{rows: []row{f.bar(width)}, space: true},
		{rows: f.rates(width), goes: 1, space: true},
		{rows: f.latencies(), goes: 2},
		{rows: []row{f.counts()}},
		{rows: f.nodeTable(width), goes: 3, space: true},
		{rows: []row{f.clientRow()}, goes: 5},
	}
	if text := f.Faults; text != "" {
		blocks = append(blocks, block{rows: []row{{{"faults   ", term.Dim}, {text, term.Yellow}}}, space: true})
	}
	if phase != "" {
		blocks = append(blocks, block{rows: []row{{{phase, term.Cyan}}}, space: true})
	}
	var events []row
	for _, e := range f.Events[max(len(f.Events)-eventsShown, 0):] {
		events = append(events, row{{e, term.Yellow}})
	}
	return append(blocks, block{rows: events, goes: 4, space: true},
		block{rows: []row{{{"Ctrl-C lets running uploads end, then reports; again stops at once", term.Dim}}}, goes: 6, space: true})
}

// fit leaves out what has no room: blank lines, then blocks, the least important first.
func (v *view) fit(blocks []block, width, height int) []string {
	total := func(spaces bool) (n int) {
		for _, b := range blocks {
			if n += len(b.rows); b.space && spaces && len(b.rows) > 0 {
				n++
			}
		}
		return n
	}
	spaces := total(true) <= height
	for goes := 6; goes > 0 && total(spaces) > height; goes-- {
		for i, b := range blocks {
			if b.goes == goes {
				over := min(total(spaces)-height, len(b.rows))
				blocks[i].rows = b.rows[:max(len(b.rows)-max(over, 0), 0)]
			}
		}
	}
	var lines []string
	for _, b := range blocks {
		if b.space && spaces && len(b.rows) > 0 {
			lines = append(lines, "")
		}
		for _, r := range b.rows {
			lines = append(lines, r.render(width, v.color))
		}
	}
	return lines[:min(len(lines), height)]
}

func (f *figures) title(width int) row {
	load := fmt.Sprintf("%d at once", f.Run.Concurrency)
	if f.Run.Rate > 0 {
		load = fmt.Sprintf("%g/s %s", f.Run.Rate, f.Run.Arrivals)
	}
	left := fmt.Sprintf("imgcluster stress · %s · %s · %s", f.Run.Delivery, load, term.Plural(f.Run.Replicas, "copy"))
	if f.Run.ReadPercent > 0 {
		left += fmt.Sprintf(" · %g %% reads", f.Run.ReadPercent)
	}
	clock := term.Clock(time.Duration(f.Clock * float64(time.Second)))
	gap := max(width-utf8.RuneCountInString(left)-len(clock), 1)
	if gap == 1 {
		left = term.Cut(left, max(width-len(clock)-1, 0))
	}
	return row{{left, term.Bold}, {strings.Repeat(" ", gap), term.Plain}, {clock, term.Bold}}
}

// bar is the progress of the uploads, or of what follows them, with its words behind it.
func (f *figures) bar(width int) row {
	part, rest := f.Part, f.Rest
	words := fmt.Sprintf("%d of %d", f.Done, f.Run.Count)
	if f.Run.DurationS > 0 {
		words = term.Plural(f.Done, "upload")
	}
	if s := &f.Stage; s.What != "" {
		part, rest = s.Part, s.Rest
		words = fmt.Sprintf("%d of %d %s", s.Done, s.Total, s.What)
	}
	words = fmt.Sprintf(" %3.0f %%  %s", part*100, words)
	if part < 1 && rest > 0 {
		words += "  ETA " + term.Clock(rest)
	}
	room := width - utf8.RuneCountInString(words)
	if room < 8 {
		return row{{strings.TrimLeft(words, " "), term.Plain}}
	}
	full := int(part * float64(room))
	return row{{strings.Repeat("█", full), term.Green}, {strings.Repeat("░", room-full), term.Dim}, {words, term.Plain}}
}

// rates are uploads and bytes a second: now, their curve, and the average.
func (f *figures) rates(width int) []row {
	var counts, sizes []float64
	for _, s := range f.Seconds {
		counts = append(counts, s.Uploads)
		sizes = append(sizes, s.Bytes)
	}
	curve := width - 42 // the words before and after it
	line := func(name, now, mean string, values []float64) row {
		r := row{{fmt.Sprintf("%-9s", name), term.Dim}, {fmt.Sprintf("%11s  ", now), term.Bold}}
		if curve < 4 {
			return r
		}
		return *r.add(term.Cyan, "%-*s", curve, term.Spark(values[max(len(values)-curve, 0):])).add(term.Dim, "  average %s", mean)
	}
	perSecond := func(b float64) string { return term.Bytes(int64(b)) + "/s" }
	return []row{
		line("uploads", fmt.Sprintf("%.1f/s", f.Recent.Uploads), fmt.Sprintf("%.1f/s", f.Average.Uploads), counts),
		line("images", perSecond(f.Recent.Bytes), perSecond(f.Average.Bytes), sizes),
	}
}

func (f *figures) latencies() []row {
	quantiles := func(name string, q stress.Quantiles) row {
		s := func(seconds float64) string {
			if q.Count == 0 {
				return unknown
			}
			return term.Duration(seconds)
		}
		r := row{{fmt.Sprintf("%-9s", name), term.Dim}}
		return *r.add(term.Plain, "        p50 %s   p99 %s   max %s", s(q.P50), s(q.P99), s(q.Max))
	}
	rows := []row{quantiles("latency", f.Latency)}
	if f.Run.Rate > 0 {
		rows[0].add(term.Dim, "   from when it was due")
		rows = append(rows, quantiles("service", f.Service))
		rows[1].add(term.Dim, "   %s behind", term.Duration(f.Client.Last.LateS))
		if n := f.Waiting; n > 0 {
			rows[1].add(term.Yellow, ", %d wait for memory", n)
		}
	}
	return rows
}

func (f *figures) counts() row {
	r := row{{"now      ", term.Dim}}
	r.add(term.Plain, "%8d in flight   ", f.Client.Last.InFlight)
	bad := func(n int64) term.Style {
		if n > 0 {
			return term.Red
		}
		return term.Plain
	}
	r.add(bad(f.Failed), "%d failed", f.Failed).add(term.Plain, "   %d retried", f.Retried)
	if f.Run.ReadPercent > 0 {
		r.add(term.Plain, "   %s", term.Plural(f.Reads, "read")).add(bad(f.Unread), ", %d failed", f.Unread)
	}
	return r
}

// unknown stands for a figure that there is none of yet.
const unknown = "-"

// column is one of the table of nodes.
type column struct {
	head  string
	width int
	goes  int // where there is little room, the highest goes first
	cell  func(n *stress.NodeFigures) string
}

// change is how much a counter grew a second, between two samples of a node that was up.
func change(n *stress.NodeFigures, of func(*runlog.NodeSample) float64) float64 {
	passed, grown := n.Last.TS-n.Before.TS, of(&n.Last)-of(&n.Before)
	if passed <= 0 || !n.Before.Up || !n.Last.Up || grown < 0 {
		return 0
	}
	return grown / passed
}

func (f *figures) columns() []column {
	perSecond := func(of func(*runlog.NodeSample) float64) func(*stress.NodeFigures) string {
		return func(n *stress.NodeFigures) string { return term.Bytes(int64(change(n, of))) + "/s" }
	}
	all := int64(0)
	for _, n := range f.Nodes {
		all += n.Uploads
	}
	return []column{
		{"share", 7, 1, func(n *stress.NodeFigures) string {
			if all == 0 {
				return unknown
			}
			return fmt.Sprintf("%.1f %%", 100*float64(n.Uploads)/float64(all))
		}},
		{"owns", 8, 3, func(n *stress.NodeFigures) string { return term.Bytes(n.Last.OwnedBytes) }},
		{"memory", 8, 4, func(n *stress.NodeFigures) string { return term.Bytes(n.Last.RSSBytes) }},
		{"disk free", 9, 5, func(n *stress.NodeFigures) string { return term.Bytes(n.Last.DiskFreeBytes) }},
		{"CPU", 6, 2, func(n *stress.NodeFigures) string {
			return fmt.Sprintf("%.0f %%", 100*change(n, func(s *runlog.NodeSample) float64 { return s.CPUS }))
		}},
		{"rx", 10, 6, perSecond(func(s *runlog.NodeSample) float64 { return float64(s.NetRxBytes) })},
		{"tx", 10, 7, perSecond(func(s *runlog.NodeSample) float64 { return float64(s.NetTxBytes) })},
	}
}

// nodeTable has a row for each node, and as many columns as there is room for.
func (f *figures) nodeTable(width int) []row {
	shown := f.columns()
	for {
		need, worst := nodeWidth(f.Nodes)+7, 0
		for i, c := range shown {
			need += c.width + 1
			if c.goes > shown[worst].goes {
				worst = i
			}
		}
		if need <= width || len(shown) == 0 {
			break
		}
		shown = append(shown[:worst:worst], shown[worst+1:]...)
	}
	name := nodeWidth(f.Nodes)
	head := fmt.Sprintf("%-*s state", name, "node")
	if len(shown) > 0 {
		head += " "
	}
	for _, c := range shown {
		head += fmt.Sprintf(" %*s", c.width, c.head)
	}
	rows := []row{{{head, term.Dim}}}
	for i := range f.Nodes {
		n := &f.Nodes[i]
		r := row{{fmt.Sprintf("%-*d ", name, n.ID), term.Bold}}
		switch {
		case n.Last.ID == 0:
			r.add(term.Dim, "%-6s", unknown)
		case n.Last.Up:
			r.add(term.Green, "%-6s", "up")
		default:
			r.add(term.Red, "%-6s", "down")
		}
		for _, c := range shown {
			text := unknown
			if n.Last.Up || c.head == "share" {
				text = c.cell(n)
			}
			r.add(term.Plain, " %*s", c.width, text)
		}
		rows = append(rows, r)
	}
	return rows
}

// nodeWidth is that of the longest number, and of the heading.
func nodeWidth(nodes []stress.NodeFigures) int {
	width := len("client")
	for _, n := range nodes {
		width = max(width, len(fmt.Sprint(n.ID)))
	}
	return width
}

// clientRow tells how busy this program is.
func (f *figures) clientRow() row {
	last, before := &f.Client.Last, &f.Client.Before
	r := row{{fmt.Sprintf("%-*s ", nodeWidth(f.Nodes), "client"), term.Bold}}
	if last.RSSBytes == 0 {
		return *r.add(term.Plain, unknown)
	}
	cpu := 0.0
	if passed := last.TS - before.TS; passed > 0 {
		cpu = 100 * (last.CPUS - before.CPUS) / passed
	}
	return *r.add(term.Plain, "%s of memory, CPU %.0f %%, %s sent", term.Bytes(last.RSSBytes), cpu, term.Bytes(last.SentBytes))
}

// figuresLine is the state of a run in one line.
func figuresLine(f stress.Figures) string {
	of := fmt.Sprintf("%d of %d uploads", f.Done, f.Run.Count)
	if f.Run.DurationS > 0 {
		of = fmt.Sprintf("%.0f of %.0f s, %s", min(f.Now, f.Run.DurationS), f.Run.DurationS, term.Plural(f.Done, "upload"))
	}
	text := fmt.Sprintf("%s, %.1f/s, %s/s, p99 %s, %d failed",
		of, f.Average.Uploads, term.Bytes(int64(f.Average.Bytes)), term.Duration(f.Latency.P99), f.Failed)
	if f.Reads > 0 {
		text += fmt.Sprintf(", %s, %d failed", term.Plural(f.Reads, "read"), f.Unread)
	}
	if f.Part < 1 && f.Rest > 0 {
		text += ", " + term.Clock(f.Rest) + " left"
	}
	if f.Faults != "" {
		text += ", " + f.Faults
	}
	return text
}
