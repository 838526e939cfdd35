package modes

import (
	"fmt"
	"os"
	"sync"
	"time"

	"imgcluster/cluster/printable"
	"imgcluster/modes/stress"
	"imgcluster/modes/term"
)

// Periods of progress: lines off a terminal, where they stay, and the one line of a terminal.
const (
	progressEvery     = 5 * time.Second
	progressEveryLive = 200 * time.Millisecond
)

// progress shows how far a command is: on a terminal in one line that is rewritten, or on a screen for
// a run, elsewhere in a line now and then, with --quiet not at all. It is safe for concurrent use.
type progress struct {
	mu     sync.Mutex
	e      *env
	live   bool // e.err is a terminal that can rewrite a line
	open   bool // the live line has no end yet
	last   time.Time
	screen *screen // nil: none is open
	view   *view
}

func (e *env) progress() *progress {
	e.shown = &progress{e: e, live: term.IsScreen(fileOf(e.err)), last: time.Now()}
	return e.shown
}

// watch shows a run on the whole terminal, where there is one that can do so, until end. Records that
// are streamed to the same terminal would be mixed in.
func (p *progress) watch(f *stress.Tally) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.live || p.e.quiet || p.e.json && term.Is(fileOf(p.e.out)) {
		return
	}
	p.view = &view{f: f, color: p.e.color(p.e.err)}
	p.screen = openScreen(p.e.err.(*os.File), p.view.lines)
}

// run shows the state of a run, where no screen does.
func (p *progress) run(final bool, f *stress.Tally) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.screen == nil {
		p.write(final, func() string { return figuresLine(f.Figures()) })
	}
}

// show writes the state of something else; a final one stays.
func (p *progress) show(final bool, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.screen != nil {
		p.view.setPhase(fmt.Sprintf(format, args...))
		return
	}
	p.write(final, func() string { return fmt.Sprintf(format, args...) })
}

// stage is show for what follows the uploads of a run: on a screen the bar goes with it.
func (p *progress) stage(s stress.Stage) {
	p.mu.Lock()
	if p.screen != nil && s.What != "" {
		p.view.f.SetStage(s.What, s.Done, s.Total)
	}
	p.mu.Unlock()
	p.show(s.Done == s.Total, "%s", s.Text)
}

func (p *progress) write(final bool, line func() string) {
	every := progressEvery
	if p.live {
		every = progressEveryLive
	}
	if p.e.quiet || !final && time.Since(p.last) < every {
		return
	}
	p.last = time.Now()
	text := printable.Text(line())
	if !p.live {
		fmt.Fprintln(p.e.err, text)
		return
	}
	fmt.Fprint(p.e.err, "\r\x1b[K", text)
	if p.open = true; final {
		p.endLine()
	}
}

// note writes a line of its own.
func (p *progress) note(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.screen != nil {
		p.view.addNote(text)
		return
	}
	p.endLine()
	p.e.say("%s", text)
}

// end leaves the live line or the screen, so that other words can follow. What the screen said that
// matters later is said again.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLine()
	if p.screen == nil {
		return
	}
	p.screen.close()
	p.screen = nil
	for _, line := range p.view.last() {
		p.e.say("%s", line)
	}
}

// crash restores the terminal, for a process that is about to end by a panic.
func (p *progress) crash() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.screen != nil {
		p.screen.leave()
	}
}

func (p *progress) endLine() {
	if p.open {
		fmt.Fprintln(p.e.err)
	}
	p.open = false
}
