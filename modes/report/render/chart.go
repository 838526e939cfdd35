package render

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"imgcluster/cluster/sample"
	"imgcluster/modes/report"
)

// A chart is drawn into a box of plotWidth by plotHeight that the page stretches to its size. Text is placed
// in percent of the box and not drawn into it, so that it keeps its size.
const (
	plotWidth  = 1000
	plotHeight = 300
	linesMax   = 12 // in one chart; the page has no colours for more
	ticksAim   = 5
)

// chart is one chart, ready for the template.
type chart struct {
	ID, Title, Unit, Summary string
	Lines                    []chartLine
	Bands                    []chartBand
	Marks                    []chartMark
	XTicks, YTicks           []tick
	XName                    string
	Data                     chartData
	Wide                     bool
}

type chartLine struct {
	Name  string
	Style int    // colour and dashes
	Path  string // of the line
	Dots  string // of points without a neighbour to draw a line to
	Area  string // below the line; empty: none
}

type chartBand struct{ X, Width float64 }

type chartMark struct {
	X           float64 // in the box
	Pos         float64 // in percent
	Glyph, Name string
}

type tick struct {
	At    float64 // in the box
	Pos   float64 // in percent
	Label string
}

// chartData is what the page's script shows of a chart at the pointer.
type chartData struct {
	Min    float64         `json:"min"`
	Max    float64         `json:"max"`
	XName  string          `json:"x"`
	Unit   string          `json:"unit"`
	Lines  []chartDataLine `json:"lines"`
	Marks  []chartDataMark `json:"marks"`
	Nines  bool            `json:"nines"`
	Factor float64         `json:"factor"` // of seconds to the x axis' unit
}

type chartDataLine struct {
	Name   string       `json:"name"`
	Style  int          `json:"style"`
	Points [][2]float64 `json:"points"`
}

type chartDataMark struct {
	T    float64 `json:"t"`
	Name string  `json:"name"`
}

// plotted is a line before it is drawn.
type plotted struct {
	name   string
	style  int
	area   bool
	points []report.Point
}

// scale maps values to places in the box.
type scale struct {
	min, max float64
	log      bool
	size     float64
	flip     bool
}

func (s scale) at(v float64) float64 {
	low, high := s.min, s.max
	if s.log {
		low, high, v = math.Log10(low), math.Log10(high), math.Log10(max(v, s.min))
	}
	f := min(max((v-low)/(high-low), 0), 1)
	if s.flip {
		f = 1 - f
	}
	return math.Round(f*s.size*10) / 10
}

func (s scale) tick(v float64, label string) tick {
	at := s.at(v)
	return tick{At: at, Pos: math.Round(1e4*at/s.size) / 100, Label: label}
}

// draw makes a chart of lines; false when there is nothing to draw.
func draw(id, title string, u unitOf, lines []plotted, axis xAxis) (chart, bool) {
	lines = slices.DeleteFunc(slices.Clone(lines), func(l plotted) bool {
		return !slices.ContainsFunc(l.points, func(p report.Point) bool { return !math.IsNaN(p.V) })
	})
	if len(lines) == 0 {
		return chart{}, false
	}
	left := max(len(lines)-linesMax, 0)
	lines = lines[:min(len(lines), linesMax)]
	bottom, top := bounds(lines)
	if top < chartLeast {
		return chart{}, false
	}
	factor, unit := u(top)
	c := chart{ID: id, Title: title, Unit: unit, XName: axis.name, XTicks: axis.ticks()}
	y := scale{max: top * factor, size: plotHeight, flip: true}
	if axis.nines && top > logScaleFrom*bottom {
		y.log = true
		y.min = math.Pow(10, math.Floor(math.Log10(bottom*factor)))
		y.max = math.Pow(10, math.Ceil(math.Log10(top*factor)))
		for v := y.min; v <= y.max*1.01; v *= 10 {
			c.YTicks = append(c.YTicks, y.tick(v, plain(v)))
		}
	} else {
		step := niceStep(y.max, ticksAim)
		y.max = step * math.Ceil(y.max/step*(1+1e-9))
		for v := 0.0; v <= y.max*1.001; v += step {
			c.YTicks = append(c.YTicks, y.tick(v, plain(v)))
		}
	}
	c.Data = chartData{
		Min:    axis.scale.min,
		Max:    axis.scale.max,
		XName:  axis.name,
		Unit:   unit,
		Nines:  axis.nines,
		Factor: axis.factor,
		Marks:  []chartDataMark{},
	}
	for _, l := range lines {
		c.add(l, factor, axis.scale, y)
	}
	c.Summary = summary(lines, factor, unit)
	if left > 0 {
		c.Summary += fmt.Sprintf(" %d more lines are left out.", left)
	}
	return c, true
}

// bounds returns the smallest value above 0, and the largest one.
func bounds(lines []plotted) (bottom, top float64) {
	bottom = math.Inf(1)
	for _, l := range lines {
		for _, p := range l.points {
			if p.V > top {
				top = p.V
			}
			if p.V > 0 && p.V < bottom {
				bottom = p.V
			}
		}
	}
	return max(bottom, top/logRangeMax), top
}

const (
	chartLeast   = 1e-9 // a chart in which everything is less is not drawn
	logRangeMax  = 1e6  // from the bottom to the top of a logarithmic scale
	logScaleFrom = 30   // how many times the smallest latency the largest is where a logarithmic scale begins
)

func (c *chart) add(l plotted, factor float64, x, y scale) {
	var path, dots, area strings.Builder
	data := chartDataLine{Name: l.name, Style: l.style, Points: [][2]float64{}}
	for _, run := range withoutGaps(l.points) {
		var corners []string
		for _, p := range run {
			data.Points = append(data.Points, [2]float64{rounded(p.T, 5), rounded(p.V*factor, 4)})
			corners = append(corners, fmt.Sprintf("%g %g", x.at(p.T), y.at(p.V*factor)))
		}
		if len(corners) == 1 {
			fmt.Fprintf(&dots, "M%sh0", corners[0])
			continue
		}
		line := strings.Join(corners, "L")
		fmt.Fprintf(&path, "M%s", line)
		if l.area {
			first, last := run[0], run[len(run)-1]
			fmt.Fprintf(&area, "M%g %dL%sL%g %dZ", x.at(first.T), plotHeight, line, x.at(last.T), plotHeight)
		}
	}
	c.Lines = append(c.Lines, chartLine{
		Name:  l.name,
		Style: l.style,
		Path:  path.String(),
		Dots:  dots.String(),
		Area:  area.String(),
	})
	c.Data.Lines = append(c.Data.Lines, data)
}

// withoutGaps cuts a line at its gaps.
func withoutGaps(points []report.Point) (runs [][]report.Point) {
	connected := false
	for _, p := range points {
		if math.IsNaN(p.V) {
			connected = false
			continue
		}
		if !connected {
			runs = append(runs, nil)
			connected = true
		}
		runs[len(runs)-1] = append(runs[len(runs)-1], p)
	}
	return runs
}

// summary says in words what the lines show, for readers who cannot see them.
func summary(lines []plotted, factor float64, unit string) string {
	var parts []string
	for _, l := range lines {
		var v []float64
		for _, p := range l.points {
			if !math.IsNaN(p.V) {
				v = append(v, p.V*factor)
			}
		}
		slices.Sort(v)
		parts = append(parts, fmt.Sprintf("%s: %s to %s %s, median %s",
			l.name, plain(v[0]), plain(v[len(v)-1]), unit, plain(v[(len(v)-1)/2])))
	}
	return strings.Join(parts, "; ") + "."
}

// rounded keeps n significant digits.
func rounded(v float64, n int) float64 {
	if v == 0 {
		return 0
	}
	m := math.Pow(10, float64(n-1)-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*m) / m
}

// plain writes the number of a tick.
func plain(v float64) string { return fmt.Sprintf("%g", rounded(v, 4)) }

// niceStep returns a round step that cuts top into about n parts.
func niceStep(top float64, n int) float64 {
	if top <= 0 {
		return 1
	}
	raw := top / float64(n)
	unit := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 5} {
		if m*unit >= raw {
			return m * unit
		}
	}
	return 10 * unit
}

// unitOf returns the unit that suits values up to top, and by how much to multiply them.
type unitOf func(top float64) (factor float64, name string)

func inUnit(name string) unitOf { return func(float64) (float64, string) { return 1, name } }

func inBytes(suffix string) unitOf {
	return func(top float64) (float64, string) {
		factor, name := 1.0, "B"
		for _, u := range []string{"kB", "MB", "GB", "TB"} {
			if top*factor < 1000 {
				break
			}
			factor, name = factor/1000, u
		}
		return factor, name + suffix
	}
}

func inSeconds(top float64) (float64, string) {
	if top < 1 {
		return 1000, "ms"
	}
	return 1, "s"
}

// unitFor returns the unit of the y axis of a figure's chart.
func unitFor(s sample.Scale) unitOf {
	switch s {
	case sample.InBytes:
		return inBytes("")
	case sample.BytesPerS:
		return inBytes("/s")
	case sample.InSeconds:
		return inSeconds
	}
	return func(float64) (float64, string) { return s.Factor(), string(s) }
}

// xAxis is a run's time, or the nines of a distribution.
type xAxis struct {
	scale  scale
	name   string  // of its unit
	factor float64 // from seconds to the unit
	nines  bool
}

func newTimeAxis(elapsed float64) xAxis {
	a := xAxis{scale: scale{max: max(elapsed, 1e-6), size: plotWidth}, name: "s", factor: 1}
	switch {
	case elapsed >= 2*3600:
		a.name, a.factor = "h", 1.0/3600
	case elapsed >= 120:
		a.name, a.factor = "min", 1.0/60
	}
	return a
}

func (a xAxis) ticks() (list []tick) {
	if a.nines {
		list = append(list, a.scale.tick(math.Log10(2), "50 %"))
		for n := 1; float64(n) <= a.scale.max; n++ {
			list = append(list, a.scale.tick(float64(n), ninesName(n)))
		}
		return list
	}
	top := a.scale.max * a.factor
	step := niceStep(top, ticksAim)
	for v := 0.0; v <= top*1.0001; v += step {
		list = append(list, a.scale.tick(v/a.factor, plain(v)))
	}
	return list
}

// ninesName returns the percentile with that many nines.
func ninesName(n int) string {
	switch n {
	case 1:
		return "90 %"
	case 2:
		return "99 %"
	}
	return "99." + strings.Repeat("9", n-2) + " %"
}
