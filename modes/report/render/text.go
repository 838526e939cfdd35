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

// TextOptions is how WriteText lays out a report.
type TextOptions struct {
	Width int  // of a line, 72 to 80; 0 is 80
	Color bool // green or red verdict, dim labels
}

const (
	widthMin = 72
	widthMax = term.Width
)

// barCells is the length of a bar for 100 %, where the line has room for it.
const barCells = 50

// Limits on the text that comes from a log.
const (
	failuresShown = 5
	cellMax       = 16 // characters in a cell of a table
)

// writeText writes the report for a person, in lines of at most opts.Width characters.
func (r shown) writeText(w io.Writer, opts TextOptions) error {
	l := newLayout(opts)
	r.textNodes(l)
	r.textFigures(l)
	r.textTime(l)
	if t := r.latencyTable(); len(t.rows) > 1 { // a single row is in a line above
		l.table(t)
	}
	l.table(r.classTable())
	l.table(r.usageTable())
	r.textChecks(l)
	r.textBottleneck(l)
	r.textComparison(l)
	for _, n := range r.Notes {
		l.line("Note: ", "", n)
	}
	l.line("Verdict: ", verdictStyle(&r.Verdict), r.Verdict.Text)
	return l.writeTo(w)
}

func newLayout(opts TextOptions) *layout {
	return &layout{width: min(max(cmp.Or(opts.Width, widthMax), widthMin), widthMax), color: opts.Color}
}

func (l *layout) writeTo(w io.Writer) error {
	if _, err := io.WriteString(w, l.out.String()); err != nil {
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

// textNodes draws one bar for each node, to the scale of barCells for 100 %; to a smaller one when the
// longest bar would not fit.
func (r shown) textNodes(l *layout) {
	l.line("Load distribution", "", "")
	var id, share, uploads, bytes term.Column
	longest := 0.0
	for _, n := range r.Nodes {
		id.Add(fmt.Sprint(n.ID))
		share.Add(fmt.Sprintf("%.1f %%", n.SharePercent))
		uploads.Add(term.Plural(n.Uploads, "upload"))
		bytes.Add(term.Bytes(n.Bytes))
		longest = max(longest, n.SharePercent)
	}
	room := l.width - len("Node   , ") - 4 - id.Width() - share.Width() - uploads.Width() - bytes.Width()
	scale := barCells / 100.0
	if cells(longest*scale) > room {
		scale = float64(room) / longest
	}
	for i, n := range r.Nodes {
		bar := fmt.Sprintf("%-*s", cells(longest*scale), bar(n.SharePercent*scale))
		l.line("Node "+id.Right(i), "", fmt.Sprintf("  %s  %s  %s, %s",
			share.Right(i), bar, uploads.Right(i), bytes.Right(i)))
	}
}

// bar draws a bar of that many cells, rounded down to an eighth of a cell.
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

func (r shown) textFigures(l *layout) {
	b := r.Balance
	if r.Succeeded == 0 {
		l.line("Balance   ", "", "no successful upload")
	} else {
		l.line("Balance   ", "", fmt.Sprintf("expected %.1f %%, "+
			"standard deviation %.2f %% by uploads, %.2f %% by bytes: %s",
			b.ExpectedPercent, b.StddevPercent, b.BytesStddevPercent, b.Words))
		l.line("Throughput ", "", fmt.Sprintf("%s uploads/s, %s/s",
			term.Digits3(r.ThroughputPerS), term.Bytes(int64(r.ThroughputBytesPerS))))
		l.line("Latency ", "", fmt.Sprintf("mean %s s, p50 %s s, p95 %s s, p99 %s s, max %s s",
			term.Seconds(r.LatencyS.Mean),
			term.Seconds(r.LatencyS.P50),
			term.Seconds(r.LatencyS.P95),
			term.Seconds(r.LatencyS.P99),
			term.Seconds(r.LatencyS.Max)))
	}
	l.line("Success ", "", fmt.Sprintf("%d of %d (%s %%)",
		r.Succeeded, r.Attempted, percentFloor(r.Succeeded, r.Attempted)))
	for i, f := range r.Failures {
		if i == failuresShown {
			l.line("  ", "", "and "+term.Plural(len(r.Failures)-i, "other reason"))
			break
		}
		l.line("  ", "", fmt.Sprintf("%d failed: %s", f.Uploads, f.Error))
	}
	r.textRun(l)
}

// percentFloor rounds down, so that only a full success reads as 100.00.
func percentFloor(part, whole int) string {
	hundredths := 10_000 * part / max(whole, 1)
	return fmt.Sprintf("%d.%02d", hundredths/100, hundredths%100)
}

// textRun describes the run.
func (r shown) textRun(l *layout) {
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
	l.line("Run ", "", strings.Join(words, ", "))
}

// A line over time.
const (
	timelineSecondsMin = 2.0 // of the run, for which it is drawn
	sparkCells         = 60  // at most
	sparkUploads       = 8   // in each cell, on average at least
)

// textTime draws throughput and latency over time.
func (r shown) textTime(l *layout) {
	if r.MeasuredS < timelineSecondsMin || len(r.Charts.Time.Uploads) < 2 {
		return
	}
	t := &r.Charts.Time
	var rate, latency []float64
	cells := min(sparkCells, max(r.Attempted/sparkUploads, 1))
	group := (len(t.Uploads) + cells - 1) / cells
	for first := 0; first < len(t.Uploads); first += group {
		done, seconds, slowest := 0, 0.0, math.NaN()
		for i := first; i < min(first+group, len(t.Uploads)); i++ {
			from, to, _ := t.Bounds(i)
			seconds += max(0, to-from)
			b := t.Uploads[i]
			done += b.Done
			if b.Done > 0 && !(slowest > b.P99S) {
				slowest = b.P99S
			}
		}
		if seconds >= report.BucketPartMin*t.WidthS {
			rate = append(rate, float64(done)/seconds)
			latency = append(latency, slowest)
		}
	}
	l.line("  uploads/s ", "", fmt.Sprintf("%s  up to %s", term.Spark(rate), term.Digits3(highest(rate))))
	l.line("  p99       ", "", fmt.Sprintf("%s  up to %s s",
		term.Spark(latency), term.Seconds(highest(latency))))
}

func highest(v []float64) (h float64) {
	for _, x := range v {
		if x > h {
			h = x
		}
	}
	return h
}

// table writes a table, or nothing when it has no row.
func (l *layout) table(t table) {
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
	l.blank()
	l.line(t.title, "", "")
	for at := range len(t.rows) + 1 {
		line := " "
		for i := range columns {
			if i < t.left {
				line += " " + columns[i].Left(at)
			} else {
				line += "  " + columns[i].Right(at)
			}
		}
		line = term.Cut(strings.TrimRight(line, " "), l.width)
		if at == 0 {
			line = l.styled(term.Dim, line)
		}
		l.out.WriteString(line + "\n")
	}
}

// textBottleneck writes what limited the run, and what to try when it was slow.
func (r shown) textBottleneck(l *layout) {
	b := r.Bottleneck
	if b == nil {
		return
	}
	if c := r.Client; c != nil {
		l.line("Client ", "", c.Words())
	}
	if r.Comparison == nil {
		defer l.blank()
	}
	if b = r.Limiting(); b == nil {
		return
	}
	label := "Limit  "
	if b.Slow {
		label = "Slow   "
	}
	l.line(label, "", b.What+"; "+b.Evidence)
	if b.Slow {
		l.line("Try    ", "", b.Try)
	}
}

func (r shown) textComparison(l *layout) {
	c := r.Comparison
	if c == nil {
		return
	}
	l.table(figureTable(c))
	l.line("  ", term.Dim, fmt.Sprintf("By %s; beyond noise below %g.", c.Test, c.Alpha))
	if len(c.Settings) > 0 {
		l.blank()
		l.line("Note: ", "", "the runs were not made alike, which may be why their figures differ:")
	}
	for _, s := range c.Settings {
		l.line("  ", "", fmt.Sprintf("%s: %s, other: %s", s.Name, s.This, s.Other))
	}
	l.blank()
}

func (r shown) textChecks(l *layout) {
	var name term.Column
	for _, c := range r.Verdict.Checks {
		name.Add(c.Name)
	}
	l.blank()
	l.line("Checks", "", "")
	for i, c := range r.Verdict.Checks {
		l.check(c.Status, "  "+name.Left(i)+"  ", c.Evidence)
	}
	l.blank()
}

// layout collects lines that keep within its width.
type layout struct {
	out   strings.Builder
	width int
	color bool
}

func (l *layout) blank() { l.out.WriteByte('\n') }

// line writes a label and a text after it, which continues below its start when it does not fit.
func (l *layout) line(label string, style term.Style, text string) {
	l.out.WriteString(l.styled(term.Dim, label))
	l.body(utf8.RuneCountInString(label), style, text)
}

// check writes a status, a name and the evidence.
func (l *layout) check(s report.Status, name, evidence string) {
	label := fmt.Sprintf("  %-7s", s)
	style := map[report.Status]term.Style{
		report.Passed:  term.BoldGreen,
		report.Failed:  term.BoldRed,
		report.Skipped: term.Dim,
	}[s]
	l.out.WriteString(l.styled(style, label))
	l.out.WriteString(name)
	l.body(utf8.RuneCountInString(label+name), "", evidence)
}

func (l *layout) body(indent int, style term.Style, text string) {
	width := l.width - indent
	for i, line := range folded(term.Wrap(printable.Text(text), width), width) {
		if i > 0 {
			l.out.WriteString(strings.Repeat(" ", indent))
		}
		l.out.WriteString(l.styled(style, line))
		l.out.WriteByte('\n')
	}
}

// folded breaks the lines that are still longer than width, for lack of a blank.
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

func (l *layout) styled(style term.Style, s string) string {
	if !l.color {
		return s
	}
	return term.Styled(style, s)
}
