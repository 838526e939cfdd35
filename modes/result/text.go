package result

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"imgcluster/cluster/printable"
)

// TextOptions says how WriteText lays the report out.
type TextOptions struct {
	Width int  // columns, 72 to 80; 0 is 80
	Color bool // green or red verdict, dim labels
}

const (
	widthMin = 72
	widthMax = 80 // what a mail takes without breaking lines
)

// barCells is the length of a bar for 100 %, where the line has room for it.
const barCells = 50

// What a table shows at most of a log's own words.
const (
	failuresShown = 5
	cellMax       = 16
)

// The terminal's attributes.
const (
	styleDim   = "\x1b[2m"
	styleGreen = "\x1b[1;32m"
	styleRed   = "\x1b[1;31m"
	styleOff   = "\x1b[0m"
)

// WriteText writes the report for a person, in lines of at most opts.Width columns.
func (r *Report) WriteText(w io.Writer, opts TextOptions) error {
	p := newPage(opts)
	r.textNodes(p)
	r.textFigures(p)
	r.textTime(p)
	if t := r.latencyTable(); len(t.rows) > 1 { // one row stands in a line already
		p.table(t)
	}
	p.table(r.classTable())
	p.table(r.usageTable())
	r.textChecks(p)
	r.textBottleneck(p)
	r.textComparison(p)
	for _, n := range r.Notes {
		p.line("Note: ", "", n)
	}
	p.line("Verdict: ", r.Verdict.style(), r.Verdict.Text)
	return p.writeTo(w)
}

func newPage(opts TextOptions) *page {
	return &page{width: min(max(cmp.Or(opts.Width, widthMax), widthMin), widthMax), color: opts.Color}
}

func (p *page) writeTo(w io.Writer) error {
	if _, err := io.WriteString(w, p.out.String()); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

func (v *Verdict) style() string {
	if v.Passed {
		return styleGreen
	}
	return styleRed
}

// textNodes draws one bar for each node, to the scale of 50 cells for 100 %; to a smaller one when
// the longest bar would not fit.
func (r *Report) textNodes(p *page) {
	p.line("Load distribution", "", "")
	var id, share, uploads, bytes column
	longest := 0.0
	for _, n := range r.Nodes {
		id.add(fmt.Sprint(n.ID))
		share.add(fmt.Sprintf("%.1f %%", n.SharePercent))
		uploads.add(plural(n.Uploads, "upload"))
		bytes.add(size(n.Bytes))
		longest = max(longest, n.SharePercent)
	}
	room := p.width - len("Node   , ") - 4 - id.width - share.width - uploads.width - bytes.width
	scale := barCells / 100.0
	if cells(longest*scale) > room {
		scale = float64(room) / longest
	}
	for i, n := range r.Nodes {
		bar := fmt.Sprintf("%-*s", cells(longest*scale), bar(n.SharePercent*scale))
		p.line("Node "+id.at(i), "", fmt.Sprintf("  %s  %s  %s, %s", share.at(i), bar, uploads.at(i), bytes.at(i)))
	}
}

// bar draws length cells, to the eighth of a cell below.
func bar(length float64) string {
	eighths := int(length * 8)
	s := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		s += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	return s
}

// cells returns how many cells a bar takes.
func cells(length float64) int { return int(math.Ceil(float64(int(length*8)) / 8)) }

func (r *Report) textFigures(p *page) {
	b := r.Balance
	if r.Succeeded == 0 {
		p.line("Balance   ", "", "no successful upload")
	} else {
		p.line("Balance   ", "", fmt.Sprintf("expected %.1f %%, standard deviation %.2f %% by uploads, %.2f %% by bytes: %s",
			b.ExpectedPercent, b.StddevPercent, b.BytesStddevPercent, b.Words))
		p.line("Throughput ", "", fmt.Sprintf("%s uploads/s, %s/s", digits3(r.ThroughputPerS), size(int64(r.ThroughputBytesPerS))))
		l := r.LatencyS
		p.line("Latency ", "", fmt.Sprintf("mean %s s, p50 %s s, p95 %s s, p99 %s s, max %s s",
			seconds(l.Mean), seconds(l.P50), seconds(l.P95), seconds(l.P99), seconds(l.Max)))
	}
	p.line("Success ", "", fmt.Sprintf("%d of %d (%s %%)", r.Succeeded, r.Attempted, percentFloor(r.Succeeded, r.Attempted)))
	for i, f := range r.Failures {
		if i == failuresShown {
			p.line("  ", "", "and "+plural(int64(len(r.Failures)-i), "other reason"))
			break
		}
		p.line("  ", "", fmt.Sprintf("%d failed: %s", f.Uploads, f.Error))
	}
	r.textRun(p)
}

// percentFloor rounds down, so that only a full success reads as 100.00.
func percentFloor(part, whole int) string {
	hundredths := 10_000 * part / max(whole, 1)
	return fmt.Sprintf("%d.%02d", hundredths/100, hundredths%100)
}

// textRun tells what run this was.
func (r *Report) textRun(p *page) {
	if r.Run == nil {
		return
	}
	words := []string{}
	add := func(s string) {
		if s = strings.TrimSpace(s); s != "" {
			words = append(words, s)
		}
	}
	add(r.Run.Profile)
	add(plural(int64(len(r.Run.Nodes)), "node"))
	add(plural(int64(r.Run.Replicas), "replica"))
	add(r.Run.Delivery)
	add(r.Run.load())
	add(seconds(r.ElapsedS) + " s")
	if !r.Run.Started.IsZero() {
		add("started " + r.Run.Started.UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	p.line("Run ", "", strings.Join(words, ", "))
}

// What a line over time takes: cells at most, and uploads for each cell.
const (
	sparkCells   = 60
	sparkUploads = 8
)

// textTime draws throughput and latency over time, a cell for each stretch.
func (r *Report) textTime(p *page) {
	if r.MeasuredS < sustainedSecondsMin || len(r.charts.time.uploads) < 2 {
		return
	}
	t := &r.charts.time
	var rate, latency []float64
	cells := min(sparkCells, max(r.Attempted/sparkUploads, 1))
	group := (len(t.uploads) + cells - 1) / cells
	for i := 0; i < len(t.uploads); i += group {
		done, time, slowest := 0, 0.0, math.NaN()
		for at := i; at < min(i+group, len(t.uploads)); at++ {
			s := t.uploads[at]
			from, to, _ := t.span(at)
			time += max(0, to-from)
			done += s.done
			if s.done > 0 && !(slowest > s.p99) {
				slowest = s.p99
			}
		}
		if time >= stretchLeast*t.width {
			rate, latency = append(rate, float64(done)/time), append(latency, slowest)
		}
	}
	p.line("  uploads/s ", "", fmt.Sprintf("%s  up to %s", spark(rate), digits3(highest(rate))))
	p.line("  p99       ", "", fmt.Sprintf("%s  up to %s s", spark(latency), seconds(highest(latency))))
}

func highest(v []float64) (h float64) {
	for _, x := range v {
		if x > h {
			h = x
		}
	}
	return h
}

// spark draws one cell for each value, from 0 up; a space where there is none.
func spark(v []float64) string {
	top := highest(v)
	s := []rune{}
	for _, x := range v {
		switch {
		case !(x > 0):
			s = append(s, ' ')
		default:
			s = append(s, []rune("▁▂▃▄▅▆▇█")[min(int(8*x/top), 7)])
		}
	}
	return string(s)
}

// table writes a table in columns, or nothing when it has no row.
func (p *page) table(t table) {
	if len(t.rows) == 0 {
		return
	}
	columns := make([]column, len(t.head))
	for i, h := range t.head {
		columns[i].add(h)
		for _, row := range t.rows {
			columns[i].add(clip(printable.Text(row[i]), cellMax))
		}
	}
	p.blank()
	p.line(t.title, "", "")
	for at := range len(t.rows) + 1 {
		line := " "
		for i := range columns {
			if i < t.left {
				line += " " + columns[i].left(at)
			} else {
				line += "  " + columns[i].at(at)
			}
		}
		if line = strings.TrimRight(line, " "); at == 0 {
			line = p.styled(styleDim, line)
		}
		p.out.WriteString(clip(line, p.width) + "\n")
	}
}

// textBottleneck says what limited; what to try only when it was slow.
func (r *Report) textBottleneck(p *page) {
	b := r.Bottleneck
	if b == nil {
		return
	}
	if c := r.Client; c != nil {
		p.line("Client ", "", c.Words())
	}
	if r.Comparison == nil {
		defer p.blank()
	}
	if b = r.Limiting(); b == nil {
		return
	}
	label := "Limit  "
	if b.Slow {
		label = "Slow   "
	}
	p.line(label, "", b.What+"; "+b.Evidence)
	if b.Slow {
		p.line("Try    ", "", b.Try)
	}
}

func (r *Report) textComparison(p *page) {
	c := r.Comparison
	if c == nil {
		return
	}
	p.table(c.figureTable())
	p.line("  ", styleDim, fmt.Sprintf("By %s; beyond noise below %g.", c.Test, c.Alpha))
	if len(c.Settings) > 0 {
		p.blank()
		p.line("Note: ", "", "the runs were not made alike, which may be why their figures differ:")
	}
	for _, s := range c.Settings {
		p.line("  ", "", fmt.Sprintf("%s: %s, other: %s", s.Name, s.This, s.Other))
	}
	p.blank()
}

func (r *Report) textChecks(p *page) {
	var name column
	for _, c := range r.Verdict.Checks {
		name.add(c.Name)
	}
	p.blank()
	p.line("Checks", "", "")
	for i, c := range r.Verdict.Checks {
		p.check(c.Status, "  "+name.left(i)+"  ", c.Evidence)
	}
	p.blank()
}

// page collects lines that keep within its width.
type page struct {
	out   strings.Builder
	width int
	color bool
}

func (p *page) blank() { p.out.WriteByte('\n') }

// line writes a label and a text behind it; what does not fit goes on below the text's start.
func (p *page) line(label, style, text string) {
	p.out.WriteString(p.styled(styleDim, label))
	p.body(utf8.RuneCountInString(label), style, text)
}

// check writes a status, a name and the evidence.
func (p *page) check(s Status, name, evidence string) {
	label := fmt.Sprintf("  %-7s", s)
	style := map[Status]string{Passed: styleGreen, Failed: styleRed, Skipped: styleDim}[s]
	p.out.WriteString(p.styled(style, label))
	p.out.WriteString(name)
	p.body(utf8.RuneCountInString(label+name), "", evidence)
}

func (p *page) body(indent int, style, text string) {
	for i, part := range wrap(printable.Text(text), p.width-indent) {
		if i > 0 {
			p.out.WriteString(strings.Repeat(" ", indent))
		}
		p.out.WriteString(p.styled(style, part))
		p.out.WriteByte('\n')
	}
}

func (p *page) styled(style, s string) string {
	if !p.color || style == "" || strings.TrimSpace(s) == "" {
		return s
	}
	return style + s + styleOff
}

// wrap breaks text at spaces into lines of at most width runes, and words that are longer anywhere.
// A number keeps the word behind it, mostly its unit. A text that fits is left as it is. There is
// always one line.
func wrap(text string, width int) []string {
	if utf8.RuneCountInString(text) <= width {
		return []string{text}
	}
	var lines []string
	line := []rune{}
	for _, word := range numbersKept(strings.Fields(text)) {
		w := []rune(word)
		if len(line) > 0 && len(line)+1+len(w) > width {
			lines, line = append(lines, string(line)), nil
		}
		if len(line) > 0 {
			line = append(line, ' ')
		}
		line = append(line, w...)
		for len(line) > width {
			lines, line = append(lines, string(line[:width])), line[width:]
		}
	}
	return append(lines, string(line))
}

// numbersKept joins words that end in a digit with the next one.
func numbersKept(words []string) []string {
	kept := words[:0:0]
	for i, word := range words {
		if i > 0 && unicode.IsDigit(rune(words[i-1][len(words[i-1])-1])) {
			kept[len(kept)-1] += " " + word
			continue
		}
		kept = append(kept, word)
	}
	return kept
}

// column is one column of a table: cells of one width.
type column struct {
	cells []string
	width int
}

func (c *column) add(s string) {
	c.cells = append(c.cells, s)
	c.width = max(c.width, utf8.RuneCountInString(s))
}

// at returns cell i, to the right of its column.
func (c *column) at(i int) string { return fmt.Sprintf("%*s", c.width, c.cells[i]) }

// left returns cell i, to the left of its column.
func (c *column) left(i int) string { return fmt.Sprintf("%-*s", c.width, c.cells[i]) }

func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
