package modes

import (
	"fmt"
	"sync"
	"time"

	"imgcluster/modes/stress"
	"imgcluster/modes/term"
)

// view draws the figures of a run on a screen of any size.
type view struct {
	tally *stress.Tally
	color bool

	mu    sync.Mutex
	phase string   // what is done beside or after the uploads
	notes []string // to be repeated after the screen is closed
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
	v.tally.Note(text)
}

// last returns the lines that stay after the screen is closed.
func (v *view) last() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	lines := append(v.notes, figuresLine(v.tally.Figures()))
	if v.phase != "" {
		lines = append(lines, v.phase)
	}
	return lines
}

// lines draws the screen.
func (v *view) lines(width, height int) []string {
	v.mu.Lock()
	phase := v.phase
	v.mu.Unlock()
	f := &figures{v.tally.Figures()}
	return term.Fit(f.blocks(width, phase), width, height, v.color)
}

// figures are the figures of a run to be drawn.
type figures struct{ stress.Figures }

// eventsShown is the number of events on the screen, the newest ones.
const eventsShown = 5

// blocks returns all that the screen shows where there is room.
func (f *figures) blocks(width int, phase string) []term.Block {
	blocks := []term.Block{
		{Rows: []term.Row{f.title(width)}},
		{Rows: []term.Row{f.bar(width)}, Gap: true},
		{Rows: f.rates(width), Drop: 1, Gap: true},
		{Rows: f.latencies(), Drop: 2},
		{Rows: []term.Row{f.counts()}},
		{Rows: f.nodeTable(width), Drop: 3, Gap: true},
		{Rows: []term.Row{f.clientRow()}, Drop: 5},
	}
	if f.Faults != "" {
		row := term.Row{{Text: "faults   ", Style: term.Dim}, {Text: f.Faults, Style: term.Yellow}}
		blocks = append(blocks, term.Block{Rows: []term.Row{row}, Gap: true})
	}
	if phase != "" {
		row := term.Row{{Text: phase, Style: term.Cyan}}
		blocks = append(blocks, term.Block{Rows: []term.Row{row}, Gap: true})
	}
	var events []term.Row
	for _, e := range f.Events[max(len(f.Events)-eventsShown, 0):] {
		events = append(events, term.Row{{Text: e, Style: term.Yellow}})
	}
	const keys = "Ctrl-C lets running uploads end, then reports; again stops at once"
	return append(blocks,
		term.Block{Rows: events, Drop: 4, Gap: true},
		term.Block{Rows: []term.Row{{{Text: keys, Style: term.Dim}}}, Drop: 6, Gap: true})
}

// title returns what the run does, and its clock.
func (f *figures) title(width int) term.Row {
	load := fmt.Sprintf("%d at once", f.Run.Concurrency)
	if f.Run.Rate > 0 {
		load = fmt.Sprintf("%g/s %s", f.Run.Rate, f.Run.Arrivals)
	}
	text := fmt.Sprintf("imgcluster stress · %s · %s · %s", f.Run.Delivery, load,
		term.Plural(f.Run.Replicas, "copy"))
	if f.Run.ReadPercent > 0 {
		text += fmt.Sprintf(" · %g %% reads", f.Run.ReadPercent)
	}
	clock := term.Clock(time.Duration(f.Clock * float64(time.Second)))
	return term.Ends(text, clock, term.Bold, width)
}

// bar returns the progress of the uploads, or of the stage that follows them.
func (f *figures) bar(width int) term.Row {
	part, rest := f.Part, f.Rest
	done := fmt.Sprintf("%d of %d", f.Done, f.Run.Count)
	if f.Run.DurationS > 0 {
		done = term.Plural(f.Done, "upload")
	}
	if s := &f.Stage; s.What != "" {
		part, rest = s.Part, s.Rest
		done = fmt.Sprintf("%d of %d %s", s.Done, s.Total, s.What)
	}
	text := fmt.Sprintf(" %3.0f %%  %s", part*100, done)
	if part < 1 && rest > 0 {
		text += "  ETA " + term.Clock(rest)
	}
	return term.Bar(part, text, width)
}

const (
	rateTextWidth = 42 // of a row of rates without its curve
	curveMin      = 4  // the least width of a curve
)

// rates returns the uploads and the bytes a second: the recent rate, its curve, and the average.
func (f *figures) rates(width int) []term.Row {
	var uploads, bytes []float64
	for _, s := range f.Seconds {
		uploads = append(uploads, s.Uploads)
		bytes = append(bytes, s.Bytes)
	}
	curve := width - rateTextWidth
	row := func(name, recent, average string, seconds []float64) term.Row {
		r := label(name)
		r.Add(term.Bold, "%11s  ", recent)
		if curve >= curveMin {
			r.Add(term.Cyan, "%-*s", curve, term.Spark(seconds[max(len(seconds)-curve, 0):]))
			r.Add(term.Dim, "  average %s", average)
		}
		return r
	}
	count := func(perSecond float64) string { return fmt.Sprintf("%.1f/s", perSecond) }
	return []term.Row{
		row("uploads", count(f.Recent.Uploads), count(f.Average.Uploads), uploads),
		row("images", bytesPerSecond(f.Recent.Bytes), bytesPerSecond(f.Average.Bytes), bytes),
	}
}

// label returns the beginning of a row.
func label(name string) term.Row { return term.Row{{Text: fmt.Sprintf("%-9s", name), Style: term.Dim}} }

func bytesPerSecond(rate float64) string { return term.Bytes(int64(rate)) + "/s" }

func (f *figures) latencies() []term.Row {
	quantiles := func(name string, q stress.Quantiles) term.Row {
		text := func(seconds float64) string {
			if q.Count == 0 {
				return unknown
			}
			return term.Duration(seconds)
		}
		r := label(name)
		return *r.Add(term.Plain, "        p50 %s   p99 %s   max %s", text(q.P50), text(q.P99), text(q.Max))
	}
	latency := quantiles("latency", f.Latency)
	if f.Run.Rate == 0 {
		return []term.Row{latency}
	}
	latency.Add(term.Dim, "   from when it was due")
	service := quantiles("service", f.Service)
	service.Add(term.Dim, "   %s behind", term.Duration(f.Client.Last.LateS))
	if n := f.Waiting; n > 0 {
		service.Add(term.Yellow, ", %d wait for memory", n)
	}
	return []term.Row{latency, service}
}

func (f *figures) counts() term.Row {
	failures := func(n int64) term.Style {
		if n > 0 {
			return term.Red
		}
		return term.Plain
	}
	r := label("now")
	r.Add(term.Plain, "%8d in flight   ", f.Client.Last.InFlight)
	r.Add(failures(f.Failed), "%d failed", f.Failed)
	r.Add(term.Plain, "   %d retried", f.Retried)
	if f.Run.ReadPercent > 0 {
		r.Add(term.Plain, "   %s", term.Plural(f.Reads, "read"))
		r.Add(failures(f.Unread), ", %d failed", f.Unread)
	}
	return r
}

// unknown is shown in place of a figure that is not known yet.
const unknown = "-"

// figuresLine returns the state of a run in one line.
func figuresLine(f stress.Figures) string {
	done := fmt.Sprintf("%d of %d uploads", f.Done, f.Run.Count)
	if f.Run.DurationS > 0 {
		done = fmt.Sprintf("%.0f of %.0f s, %s", min(f.Now, f.Run.DurationS), f.Run.DurationS,
			term.Plural(f.Done, "upload"))
	}
	text := fmt.Sprintf("%s, %.1f/s, %s, p99 %s, %d failed", done, f.Average.Uploads,
		bytesPerSecond(f.Average.Bytes), term.Duration(f.Latency.P99), f.Failed)
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
