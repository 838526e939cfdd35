package modes

import (
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/HdrHistogram/hdrhistogram-go"

	"imgcluster/cluster/printable"
	"imgcluster/modes/runlog"
	"imgcluster/modes/term"
)

// view lays the figures of a run out on a screen of any size.
type view struct {
	f     *tally
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
	v.f.mu.Lock()
	defer v.f.mu.Unlock()
	v.f.note(text)
}

// last is what stays when the screen is gone.
func (v *view) last() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	lines := append(v.notes, v.f.String())
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
	return v.fit(v.f.blocks(width, phase), width, height)
}

// eventsShown is how many of the last ones are.
const eventsShown = 5

// blocks are all that can be shown.
func (f *tally) blocks(width int, phase string) []block {
	f.mu.Lock()
	defer f.mu.Unlock()
	blocks := []block{
		{rows: []row{f.title(width)}},
		{rows: []row{f.bar(width)}, space: true},
		{rows: f.rates(width), goes: 1, space: true},
		{rows: f.latencies(), goes: 2},
		{rows: []row{f.counts()}},
		{rows: f.nodeTable(width), goes: 3, space: true},
		{rows: []row{f.clientRow()}, goes: 5},
	}
	if text := strings.TrimPrefix(f.trial.suffix(), ", "); text != "" {
		blocks = append(blocks, block{rows: []row{{{"faults   ", term.Dim}, {text, term.Yellow}}}, space: true})
	}
	if phase != "" {
		blocks = append(blocks, block{rows: []row{{{phase, term.Cyan}}}, space: true})
	}
	var events []row
	for _, e := range f.events[max(len(f.events)-eventsShown, 0):] {
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

// What follows is called with the lock of the tally held.

func (f *tally) title(width int) row {
	load := fmt.Sprintf("%d at once", f.run.Concurrency)
	if f.run.Rate > 0 {
		load = fmt.Sprintf("%g/s %s", f.run.Rate, f.run.Arrivals)
	}
	left := fmt.Sprintf("imgcluster stress · %s · %s · %s", f.run.Delivery, load, term.Plural(f.run.Replicas, "copy"))
	if f.run.ReadPercent > 0 {
		left += fmt.Sprintf(" · %g %% reads", f.run.ReadPercent)
	}
	clock := term.Clock(time.Duration(f.clock() * float64(time.Second)))
	gap := max(width-utf8.RuneCountInString(left)-len(clock), 1)
	if gap == 1 {
		left = term.Cut(left, max(width-len(clock)-1, 0))
	}
	return row{{left, term.Bold}, {strings.Repeat(" ", gap), term.Plain}, {clock, term.Bold}}
}

// bar is the progress of the uploads, or of what follows them, with its words behind it.
func (f *tally) bar(width int) row {
	part, rest := f.progress()
	words := fmt.Sprintf("%d of %d", f.done, f.run.Count)
	if f.run.DurationS > 0 {
		words = term.Plural(f.done, "upload")
	}
	if s := &f.after; s.what != "" {
		part, rest = s.progress()
		words = fmt.Sprintf("%d of %d %s", s.done, s.total, s.what)
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
func (f *tally) rates(width int) []row {
	uploads, bytes := f.rate()
	meanUploads, meanBytes := f.average()
	var counts, sizes []float64
	for i := 0; i < len(f.seconds) && i < int(f.now)-f.first; i++ {
		counts = append(counts, float64(f.seconds[i].uploads))
		sizes = append(sizes, float64(f.seconds[i].bytes))
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
		line("uploads", fmt.Sprintf("%.1f/s", uploads), fmt.Sprintf("%.1f/s", meanUploads), counts),
		line("images", perSecond(bytes), perSecond(meanBytes), sizes),
	}
}

func (f *tally) latencies() []row {
	quantiles := func(name string, h *hdrhistogram.Histogram) row {
		s := func(us int64) string {
			if h.TotalCount() == 0 {
				return unknown
			}
			return term.Duration(float64(us) / 1e6)
		}
		r := row{{fmt.Sprintf("%-9s", name), term.Dim}}
		return *r.add(term.Plain, "        p50 %s   p99 %s   max %s", s(h.ValueAtQuantile(50)), s(h.ValueAtQuantile(99)), s(h.Max()))
	}
	rows := []row{quantiles("latency", f.latency)}
	if f.run.Rate > 0 {
		rows[0].add(term.Dim, "   from when it was due")
		rows = append(rows, quantiles("service", f.service))
		rows[1].add(term.Dim, "   %s behind", term.Duration(f.client.last.LateS))
		if n := f.waiting.Load(); n > 0 {
			rows[1].add(term.Yellow, ", %d wait for memory", n)
		}
	}
	return rows
}

func (f *tally) counts() row {
	r := row{{"now      ", term.Dim}}
	r.add(term.Plain, "%8d in flight   ", f.client.last.InFlight)
	bad := func(n int64) term.Style {
		if n > 0 {
			return term.Red
		}
		return term.Plain
	}
	r.add(bad(f.failed), "%d failed", f.failed).add(term.Plain, "   %d retried", f.retried)
	if f.run.ReadPercent > 0 {
		r.add(term.Plain, "   %s", term.Plural(f.reads, "read")).add(bad(f.unread), ", %d failed", f.unread)
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
	cell  func(n *nodeTally) string
}

// change is how much a counter grew a second, between two samples of a node that was up.
func change(n *nodeTally, of func(*runlog.NodeSample) float64) float64 {
	passed, grown := n.last.TS-n.before.TS, of(&n.last)-of(&n.before)
	if passed <= 0 || !n.before.Up || !n.last.Up || grown < 0 {
		return 0
	}
	return grown / passed
}

func (f *tally) columns() []column {
	perSecond := func(of func(*runlog.NodeSample) float64) func(*nodeTally) string {
		return func(n *nodeTally) string { return term.Bytes(int64(change(n, of))) + "/s" }
	}
	all := int64(0)
	for _, n := range f.nodes {
		all += n.uploads
	}
	return []column{
		{"share", 7, 1, func(n *nodeTally) string {
			if all == 0 {
				return unknown
			}
			return fmt.Sprintf("%.1f %%", 100*float64(n.uploads)/float64(all))
		}},
		{"owns", 8, 3, func(n *nodeTally) string { return term.Bytes(n.last.OwnedBytes) }},
		{"memory", 8, 4, func(n *nodeTally) string { return term.Bytes(n.last.RSSBytes) }},
		{"disk free", 9, 5, func(n *nodeTally) string { return term.Bytes(n.last.DiskFreeBytes) }},
		{"CPU", 6, 2, func(n *nodeTally) string {
			return fmt.Sprintf("%.0f %%", 100*change(n, func(s *runlog.NodeSample) float64 { return s.CPUS }))
		}},
		{"rx", 10, 6, perSecond(func(s *runlog.NodeSample) float64 { return float64(s.NetRxBytes) })},
		{"tx", 10, 7, perSecond(func(s *runlog.NodeSample) float64 { return float64(s.NetTxBytes) })},
	}
}

// nodeTable has a row for each node, and as many columns as there is room for.
func (f *tally) nodeTable(width int) []row {
	shown := f.columns()
	for {
		need, worst := nodeWidth(f.nodes)+7, 0
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
	name := nodeWidth(f.nodes)
	head := fmt.Sprintf("%-*s state", name, "node")
	if len(shown) > 0 {
		head += " "
	}
	for _, c := range shown {
		head += fmt.Sprintf(" %*s", c.width, c.head)
	}
	rows := []row{{{head, term.Dim}}}
	for i := range f.nodes {
		n := &f.nodes[i]
		r := row{{fmt.Sprintf("%-*d ", name, n.id), term.Bold}}
		switch {
		case n.last.ID == 0:
			r.add(term.Dim, "%-6s", unknown)
		case n.last.Up:
			r.add(term.Green, "%-6s", "up")
		default:
			r.add(term.Red, "%-6s", "down")
		}
		for _, c := range shown {
			text := unknown
			if n.last.Up || c.head == "share" {
				text = c.cell(n)
			}
			r.add(term.Plain, " %*s", c.width, text)
		}
		rows = append(rows, r)
	}
	return rows
}

// nodeWidth is that of the longest number, and of the heading.
func nodeWidth(nodes []nodeTally) int {
	width := len("client")
	for _, n := range nodes {
		width = max(width, len(fmt.Sprint(n.id)))
	}
	return width
}

// clientRow tells how busy this program is.
func (f *tally) clientRow() row {
	last, before := &f.client.last, &f.client.before
	r := row{{fmt.Sprintf("%-*s ", nodeWidth(f.nodes), "client"), term.Bold}}
	if last.RSSBytes == 0 {
		return *r.add(term.Plain, unknown)
	}
	cpu := 0.0
	if passed := last.TS - before.TS; passed > 0 {
		cpu = 100 * (last.CPUS - before.CPUS) / passed
	}
	return *r.add(term.Plain, "%s of memory, CPU %.0f %%, %s sent", term.Bytes(last.RSSBytes), cpu, term.Bytes(last.SentBytes))
}
