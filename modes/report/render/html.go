package render

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"

	"imgcluster/cluster/printable"
	"imgcluster/cluster/sample"
	"imgcluster/modes/report"
	"imgcluster/modes/term"
)

//go:embed page
var pageFiles embed.FS

// pageTemplate is the page; style and script are put into it, so that it needs no other file.
var pageTemplate = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"style": func() (template.CSS, error) {
		b, err := pageFiles.ReadFile("page/page.css")
		return template.CSS(b), err
	},
	"script": func() (template.JS, error) {
		b, err := pageFiles.ReadFile("page/page.js")
		return template.JS(b), err
	},
	"words": printable.Text,
}).ParseFS(pageFiles, "page/page.html"))

// ScriptHash returns the hash of the page's script, as a Content-Security-Policy names it.
func ScriptHash() string {
	b, err := pageFiles.ReadFile("page/page.js")
	if err != nil {
		panic(err) // it is in the program
	}
	sum := sha256.Sum256(b)
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// WriteHTML writes the reports as one page that needs no other file and no network. It is light or dark like
// the reader's system, and can be printed.
func (rs Reports) WriteHTML(w io.Writer) error {
	p := pageView{Title: "Stress run"}
	for i, r := range rs {
		p.Reports = append(p.Reports, shown{r}.view(i, len(rs)))
	}
	if len(rs) > 1 {
		t := rs.table()
		p.Summary = &tableView{ID: t.id, Title: t.title, Head: cellsOf(t, t.head), Rows: rowsOf(t)}
		for i, row := range p.Summary.Rows {
			row[0].Link = "#" + p.Reports[i].Prefix + "verdict"
		}
		p.Title = term.Plural(len(rs), "stress run")
	}
	if err := pageTemplate.Execute(w, p); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

type pageView struct {
	Title   string
	Summary *tableView
	Reports []reportView
}

type reportView struct {
	Prefix string // of all anchors in the page
	Name   string
	*report.Report
	When         string
	Tiles        []tile
	Shares       []shareView
	Comparison   *comparisonView
	OverTime     []chart
	Distribution []chart // of latency
	Resources    []chart
	Latency      tableView
	Classes      tableView
	Nodes        tableView
	Used         tableView
	Busy         tableView
	Lost         tableView
	Happened     tableView
	Settings     tableView
	LimitList    tableView
	Checks       []checkView
	Glyphs       []chartMark // those of the charts, explained
}

type comparisonView struct {
	*report.Comparison
	Figures, Settings tableView
	Charts            []chart
}

// tile is one of the figures at the top.
type tile struct{ Name, Value, Unit, More string }

type checkView struct {
	report.Check
	Title   string
	Numbers []numberView
}

type numberView struct{ Name, Value string }

// shareView is one node's share, drawn as bars in percent of their box.
type shareView struct {
	Node           int
	Style          int
	Uploads, Bytes string
	Share, ByBytes float64
	ShareWords     string
	ByBytesWords   string
	Even           float64 // where an even share is
}

type tableView struct {
	ID, Title string
	Head      []cell
	Rows      [][]cell
}

type cell struct {
	Text   string
	Number bool
	Link   string // to an anchor in the page; empty: none
}

func viewOf(prefix string, t table) tableView {
	return tableView{ID: prefix + t.id, Title: t.title, Head: cellsOf(t, t.head), Rows: rowsOf(t)}
}

func cellsOf(t table, row []string) []cell {
	cells := make([]cell, len(row))
	for i, s := range row {
		cells[i] = cell{Text: printable.Text(s), Number: i >= t.left}
	}
	return cells
}

func rowsOf(t table) (rows [][]cell) {
	for _, row := range t.rows {
		rows = append(rows, cellsOf(t, row))
	}
	return rows
}

// unbroken finds the spaces between numbers and their units.
var unbroken = regexp.MustCompile(`(\d) `)

// view prepares report i of n for the template.
func (r shown) view(i, n int) reportView {
	v := reportView{Report: r.Report, Name: printable.Text(r.Log)}
	if n > 1 {
		v.Prefix = fmt.Sprintf("run%d-", i+1)
	}
	if r.Run != nil && !r.Run.Started.IsZero() {
		v.When = r.Run.Started.UTC().Format("2 January 2006, 15:04:05 UTC")
	}
	for _, t := range r.tiles() {
		t.More = unbroken.ReplaceAllString(t.More, "$1\u00a0")
		v.Tiles = append(v.Tiles, t)
	}
	v.Shares = r.shareViews()
	v.draw()
	v.Latency = viewOf(v.Prefix, r.latencyTable())
	v.Classes = viewOf(v.Prefix, r.classTable())
	v.Nodes = viewOf(v.Prefix, r.shareTable())
	v.Used = viewOf(v.Prefix, r.usageTable())
	v.Busy = viewOf(v.Prefix, r.resourceTable())
	v.Lost = viewOf(v.Prefix, r.failureTable())
	v.Happened = viewOf(v.Prefix, r.eventTable())
	v.Settings = viewOf(v.Prefix, r.runTable())
	v.LimitList = viewOf(v.Prefix, r.limitTable())
	for _, c := range r.Verdict.Checks {
		view := checkView{Check: c, Title: checkTitles[c.Name]}
		for _, name := range slices.Sorted(maps.Keys(c.Figures)) {
			number := numberView{strings.ReplaceAll(name, "_", " "), plain(c.Figures[name])}
			view.Numbers = append(view.Numbers, number)
		}
		v.Checks = append(v.Checks, view)
	}
	if c := r.Comparison; c != nil {
		v.Comparison = &comparisonView{
			Comparison: c,
			Figures:    viewOf(v.Prefix, figureTable(c)),
			Settings:   viewOf(v.Prefix, settingTable(c)),
			Charts:     r.compareCharts(v.Prefix),
		}
	}
	return v
}

// tiles are the most important figures.
func (r shown) tiles() []tile {
	list := []tile{
		{
			"Throughput", term.Digits3(r.ThroughputPerS), "uploads/s",
			fmt.Sprintf("%s/s of images", term.Bytes(int64(r.ThroughputBytesPerS))),
		},
		{
			"Succeeded", percentFloor(r.Succeeded, r.Attempted), "%",
			fmt.Sprintf("%d of %s", r.Succeeded, term.Plural(r.Attempted, "upload")),
		},
		{
			"Latency p99", term.Seconds(r.LatencyS.P99), "s",
			fmt.Sprintf("p50 %s s, max %s s", term.Seconds(r.LatencyS.P50), term.Seconds(r.LatencyS.Max)),
		},
		{
			"Balance", fmt.Sprintf("%.2f", r.Balance.StddevPercent), "% stddev",
			fmt.Sprintf("%.2f %% by bytes; %s", r.Balance.BytesStddevPercent, r.Balance.Words),
		},
		{
			"Length", term.Seconds(r.MeasuredS), "s",
			fmt.Sprintf("%s stored", term.Bytes(r.Bytes)),
		},
	}
	if r.Reads != nil {
		list = append(list, tile{
			"Reads", term.Digits3(r.Reads.ThroughputPerS), "reads/s",
			fmt.Sprintf("p99 %s s", term.Seconds(r.Reads.LatencyS.P99)),
		})
	}
	return list
}

func (r shown) shareViews() []shareView {
	most := r.Balance.ExpectedPercent
	for _, n := range r.Nodes {
		most = max(most, n.SharePercent, n.BytesSharePercent)
	}
	var list []shareView
	for i, n := range r.Nodes {
		list = append(list, shareView{
			Node:         n.ID,
			Style:        i % linesMax,
			Uploads:      term.Plural(n.Uploads, "upload"),
			Bytes:        term.Bytes(n.Bytes),
			Share:        rounded(100*part(n.SharePercent, most), 4),
			ByBytes:      rounded(100*part(n.BytesSharePercent, most), 4),
			ShareWords:   fmt.Sprintf("%.2f %%", n.SharePercent),
			ByBytesWords: fmt.Sprintf("%.2f %%", n.BytesSharePercent),
			Even:         rounded(100*part(r.Balance.ExpectedPercent, most), 4),
		})
	}
	return list
}

// draw makes all charts that have something to show.
func (v *reportView) draw() {
	r := shown{v.Report}
	axis := newTimeAxis(r.ElapsedS)
	add := func(to *[]chart, id, title string, u unitOf, lines ...plotted) {
		if c, ok := draw(v.Prefix+id, title, u, lines, axis); ok {
			v.mark(&c, axis)
			*to = append(*to, c)
		}
	}
	t := &r.Charts.Time
	add(&v.OverTime, "throughput", "Throughput", inUnit("operations/s"),
		perSecond(t, "uploads", 0, true, t.Uploads, done),
		perSecond(t, "reads", 1, false, t.Reads, done),
		failures(t))
	add(&v.OverTime, "volume", "Volume", inBytes("/s"),
		perSecond(t, "images stored", 0, true, t.Uploads, bytesOf),
		perSecond(t, "images read", 1, false, t.Reads, bytesOf))
	add(&v.OverTime, "latency-time", "Latency over time", inSeconds,
		latency(t, "uploads p99", 3, t.Uploads, func(b report.Bucket) float64 { return b.P99S }),
		latency(t, "uploads p50", 0, t.Uploads, func(b report.Bucket) float64 { return b.P50S }),
		latency(t, "reads p99", 4, t.Reads, func(b report.Bucket) float64 { return b.P99S }))
	lines, nines := distributions(r.Charts.Latency)
	if c, ok := draw(v.Prefix+"latency-spread", "Latency distribution", inSeconds, lines, nines); ok {
		v.Distribution = append(v.Distribution, c)
	}
	for _, f := range sample.Processes {
		if f.Report.Chart == "" {
			continue
		}
		var lines []plotted
		for i, p := range r.Charts.Processes {
			lines = append(lines, plotted{name: p.Name, style: i % linesMax, points: p.Of[f.Name]})
		}
		id := strings.ReplaceAll(f.Name, "_", "-")
		add(&v.Resources, id, f.Report.Chart, unitFor(f.Report.Scale), lines...)
	}
}

// distributions returns the lines of distributions, and their axis.
func distributions(list []report.Distribution) (lines []plotted, nines xAxis) {
	most := 1.0
	for i, d := range list {
		lines = append(lines, plotted{name: d.Name, style: i, points: d.Points})
		most = max(most, d.Points[len(d.Points)-1].T)
	}
	return lines, xAxis{scale: scale{max: most, size: plotWidth}, nines: true, factor: 1}
}

func done(b report.Bucket) float64    { return float64(b.Done) }
func failed(b report.Bucket) float64  { return float64(b.Failed) }
func bytesOf(b report.Bucket) float64 { return float64(b.Bytes) }

// perSecond is a line of something a second.
func perSecond(t *report.Timeline, name string, style int, area bool, buckets []report.Bucket,
	of func(report.Bucket) float64,
) plotted {
	p := plotted{name: name, style: style, area: area}
	for i, b := range buckets {
		if from, to, ok := t.Bounds(i); ok {
			p.points = append(p.points, report.Point{T: (from + to) / 2, V: of(b) / (to - from)})
		}
	}
	return p
}

// failures is a line of failures a second; empty when there was none.
func failures(t *report.Timeline) plotted {
	p := perSecond(t, "failed", 3, false, t.Uploads, failed)
	if !slices.ContainsFunc(p.points, func(p report.Point) bool { return p.V > 0 }) {
		p.points = nil
	}
	return p
}

func latency(t *report.Timeline, name string, style int, buckets []report.Bucket,
	of func(report.Bucket) float64,
) plotted {
	p := plotted{name: name, style: style}
	for i, b := range buckets {
		p.points = append(p.points, report.Point{T: (float64(i) + 0.5) * t.WidthS, V: of(b)})
	}
	return p
}

// The kinds of events, as in the log, that are more than a sign in a chart.
const (
	seenDown = "node_down"
	seenUp   = "node_up"
	held     = "load_held"
	released = "load_released"
)

// glyphs are the signs of events in a chart, by their kind; other events are in the table only.
var glyphs = map[string]struct{ sign, name string }{
	seenDown:         {"▽", "seen down"},
	seenUp:           {"△", "seen up"},
	"node_killed":    {"✕", "killed"},
	"node_stopped":   {"■", "stopped"},
	"node_paused":    {"‖", "paused"},
	"node_restarted": {"▲", "restarted"},
	"node_continued": {"▶", "continued"},
	"node_healed":    {"✓", "healed"},
	"node_lost":      {"!", "lost"},
	"node_unhealed":  {"!", "not healed"},
	"resumed":        {"↻", "run resumed"},
}

// mark adds the events, and a band wherever the run let no upload start.
func (v *reportView) mark(c *chart, axis xAxis) {
	heldFrom := math.NaN()
	if warm := v.ElapsedS - v.MeasuredS; warm > 0 {
		c.Bands = append(c.Bands, chartBand{0, axis.scale.at(warm)})
		v.legend("▒", "warm-up, left out")
	}
	for _, e := range v.Events {
		switch e.Kind {
		case held:
			heldFrom = e.TS
		case released:
			if x := axis.scale.at(heldFrom); !math.IsNaN(heldFrom) {
				c.Bands = append(c.Bands, chartBand{x, rounded(axis.scale.at(e.TS)-x, 5)})
				v.legend("▒", "uploads wait for the cluster")
			}
		}
		g, ok := glyphs[e.Kind]
		seen := e.Kind == seenDown || e.Kind == seenUp
		planned := v.Run != nil && v.Run.Faults > 0
		if !ok || e.TS > axis.scale.max || seen && planned { // the run's own faults are marked already
			continue
		}
		name := g.name
		if e.Node > 0 {
			name = fmt.Sprintf("node %d %s", e.Node, g.name)
		}
		at := axis.scale.tick(e.TS, "")
		c.Marks = append(c.Marks, chartMark{X: at.At, Pos: at.Pos, Glyph: g.sign, Name: name})
		c.Data.Marks = append(c.Data.Marks, chartDataMark{rounded(e.TS, 6), name})
		v.legend(g.sign, g.name)
	}
}

// legend adds the explanation of a sign, once.
func (v *reportView) legend(sign, name string) {
	for _, g := range v.Glyphs {
		if g.Name == name {
			return
		}
	}
	v.Glyphs = append(v.Glyphs, chartMark{Glyph: sign, Name: name})
}

// checkTitles are the questions that the checks answer.
var checkTitles = map[string]string{
	"production_scale_files": "Were the images of the intended sizes, and read back as they were sent?",
	"sustained_load":         "Were throughput and latency good enough, to the end?",
	"balance":                "Did every node get its share?",
	"memory_stable":          "Did memory stay within bounds, without growing?",
	"network":                "Was no more sent than needed?",
	"hash_quality":           "Is the hash even, and do few images have to go to other nodes?",
	"fault_tolerance":        "Did the cluster survive the loss of nodes?",
}

// part returns a/b, and 0 when b is 0.
func part(a, b float64) float64 {
	if b <= 0 {
		return 0
	}
	return a / b
}
