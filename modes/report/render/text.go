package render

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"

	"imgcluster/cluster/printable"
	"imgcluster/modes/report"
	"imgcluster/modes/term"
)

// TextOptions says how WriteText lays the report out.
type TextOptions struct {
	Width int  // columns, 72 to 80; 0 is 80
	Color bool // green or red verdict, dim labels
}

const (
	widthMin = 72
	widthMax = term.Width
)

// barCells is the length of a bar for 100 %, where the line has room for it.
const barCells = 50

// What a table shows at most of a log's own words.
const (
	failuresShown = 5
	cellMax       = 16
)

// writeText writes the report for a person, in lines of at most opts.Width columns.
func (r shown) writeText(w io.Writer, opts TextOptions) error {
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
	p.line("Verdict: ", verdictStyle(&r.Verdict), r.Verdict.Text)
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

func verdictStyle(v *report.Verdict) term.Style {
	if v.Passed {
		return term.BoldGreen
	}
	return term.BoldRed
}

// textNodes draws one bar for each node, to the scale of 50 cells for 100 %; to a smaller one when
// the longest bar would not fit.
func (r shown) textNodes(p *page) {
	p.line("Load distribution", "", "")
	var id, share, uploads, bytes term.Column
	longest := 0.0
	for _, n := range r.Nodes {
		id.Add(fmt.Sprint(n.ID))
		share.Add(fmt.Sprintf("%.1f %%", n.SharePercent))
		uploads.Add(term.Plural(n.Uploads, "upload"))
		bytes.Add(term.Bytes(n.Bytes))
		longest = max(longest, n.SharePercent)
	}
	room := p.width - len("Node   , ") - 4 - id.Width() - share.Width() - uploads.Width() - bytes.Width()
	scale := barCells / 100.0
	if cells(longest*scale) > room {
		scale = float64(room) / longest
	}
	for i, n := range r.Nodes {
		bar := fmt.Sprintf("%-*s", cells(longest*scale), bar(n.SharePercent*scale))
		p.line("Node "+id.Right(i), "", fmt.Sprintf("  %s  %s  %s, %s", share.Right(i), bar, uploads.Right(i),
			bytes.Right(i)))
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

func (r shown) textFigures(p *page) {
	b := r.Balance
	if r.Succeeded == 0 {
		p.line("Balance   ", "", "no successful upload")
	} else {
		p.line("Balance   ", "", fmt.Sprintf("expected %.1f %%, standard deviation %.2f %% by uploads, %.2f %% by bytes: %s",
			b.ExpectedPercent, b.StddevPercent, b.BytesStddevPercent, b.Words))
		p.line("Throughput ", "", fmt.Sprintf("%s uploads/s, %s/s", term.Digits3(r.ThroughputPerS),
			term.Bytes(int64(r.ThroughputBytesPerS))))
		l := r.LatencyS
		p.line("Latency ", "", fmt.Sprintf("mean %s s, p50 %s s, p95 %s s, p99 %s s, max %s s",
			term.Seconds(l.Mean), term.Seconds(l.P50), term.Seconds(l.P95), term.Seconds(l.P99),
			term.Seconds(l.Max)))
	}
	p.line("Success ", "", fmt.Sprintf("%d of %d (%s %%)", r.Succeeded, r.Attempted,
		percentFloor(r.Succeeded, r.Attempted)))
	for i, f := range r.Failures {
		if i == failuresShown {
			p.line("  ", "", "and "+term.Plural(len(r.Failures)-i, "other reason"))
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
func (r shown) textRun(p *page) {
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
	add(term.Plural(len(r.Run.Nodes), "node"))
	add(term.Plural(r.Run.Replicas, "replica"))
	add(r.Run.Delivery)
	add(r.Load())
	add(term.Seconds(r.ElapsedS) + " s")
	if !r.Run.Started.IsZero() {
		add("started " + r.Run.Started.UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	p.line("Run ", "", strings.Join(words, ", "))
}

// What a line over time takes: seconds of the run, cells at most, and uploads for each cell.
const (
	timelineSecondsMin = 2.0
	sparkCells         = 60
	sparkUploads       = 8
)

// textTime draws throughput and latency over time, a cell for each stretch.
func (r shown) textTime(p *page) {
	if r.MeasuredS < timelineSecondsMin || len(r.Charts.Time.Uploads) < 2 {
		return
	}
	t := &r.Charts.Time
	var rate, latency []float64
	cells := min(sparkCells, max(r.Attempted/sparkUploads, 1))
	group := (len(t.Uploads) + cells - 1) / cells
	for i := 0; i < len(t.Uploads); i += group {
		done, time, slowest := 0, 0.0, math.NaN()
		for at := i; at < min(i+group, len(t.Uploads)); at++ {
			s := t.Uploads[at]
			from, to, _ := t.Bounds(at)
			time += max(0, to-from)
			done += s.Done
			if s.Done > 0 && !(slowest > s.P99S) {
				slowest = s.P99S
			}
		}
		if time >= report.BucketPartMin*t.WidthS {
			rate, latency = append(rate, float64(done)/time), append(latency, slowest)
		}
	}
	p.line("  uploads/s ", "", fmt.Sprintf("%s  up to %s", term.Spark(rate), term.Digits3(highest(rate))))
	p.line("  p99       ", "", fmt.Sprintf("%s  up to %s s", term.Spark(latency),
		term.Seconds(highest(latency))))
}

func highest(v []float64) (h float64) {
	for _, x := range v {
		if x > h {
			h = x
		}
	}
	return h
}

// table writes a table in columns, or nothing when it has no row.
func (p *page) table(t table) {
	if len(t.rows) == 0 {
		return
	}
	columns := make([]term.Column, len(t.head))
	for i, h := range t.head {
		columns[i].Add(h)
		for _, row := range t.rows {
			columns[i].Add(term.Cut(printable.Text(row[i]), cellMax))
		}
	}
	p.blank()
	p.line(t.title, "", "")
	for at := range len(t.rows) + 1 {
		line := " "
		for i := range columns {
			if i < t.left {
				line += " " + columns[i].Left(at)
			} else {
				line += "  " + columns[i].Right(at)
			}
		}
		line = term.Cut(strings.TrimRight(line, " "), p.width)
		if at == 0 {
			line = p.styled(term.Dim, line)
		}
		p.out.WriteString(line + "\n")
	}
}

// textBottleneck says what limited; what to try only when it was slow.
func (r shown) textBottleneck(p *page) {
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

func (r shown) textComparison(p *page) {
	c := r.Comparison
	if c == nil {
		return
	}
	p.table(figureTable(c))
	p.line("  ", term.Dim, fmt.Sprintf("By %s; beyond noise below %g.", c.Test, c.Alpha))
	if len(c.Settings) > 0 {
		p.blank()
		p.line("Note: ", "", "the runs were not made alike, which may be why their figures differ:")
	}
	for _, s := range c.Settings {
		p.line("  ", "", fmt.Sprintf("%s: %s, other: %s", s.Name, s.This, s.Other))
	}
	p.blank()
}

func (r shown) textChecks(p *page) {
	var name term.Column
	for _, c := range r.Verdict.Checks {
		name.Add(c.Name)
	}
	p.blank()
	p.line("Checks", "", "")
	for i, c := range r.Verdict.Checks {
		p.check(c.Status, "  "+name.Left(i)+"  ", c.Evidence)
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
func (p *page) line(label string, style term.Style, text string) {
	p.out.WriteString(p.styled(term.Dim, label))
	p.body(utf8.RuneCountInString(label), style, text)
}

// check writes a status, a name and the evidence.
func (p *page) check(s report.Status, name, evidence string) {
	label := fmt.Sprintf("  %-7s", s)
	style := map[report.Status]term.Style{
		report.Passed: term.BoldGreen, report.Failed: term.BoldRed,
		report.Skipped: term.Dim,
	}[s]
	p.out.WriteString(p.styled(style, label))
	p.out.WriteString(name)
	p.body(utf8.RuneCountInString(label+name), "", evidence)
}

func (p *page) body(indent int, style term.Style, text string) {
	lines := term.Wrap(printable.Text(text), p.width-indent)
	for i, line := range folded(lines, p.width-indent) {
		if i > 0 {
			p.out.WriteString(strings.Repeat(" ", indent))
		}
		p.out.WriteString(p.styled(style, line))
		p.out.WriteByte('\n')
	}
}

// folded breaks the lines that are wider than width, which have no blank where they could be.
func folded(lines []string, width int) (out []string) {
	for _, line := range lines {
		rest := []rune(line)
		for ; len(rest) > width; rest = rest[width:] {
			out = append(out, string(rest[:width]))
		}
		out = append(out, string(rest))
	}
	return out
}

func (p *page) styled(style term.Style, s string) string {
	if !p.color {
		return s
	}
	return term.Styled(style, s)
}
