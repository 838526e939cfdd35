package modes

import (
	"fmt"
	"os"
	"sync"

	"imgcluster/modes/stress"
	"imgcluster/modes/term"
)

// progress shows how far a command is: on a terminal in one line that is rewritten, or on a screen for
// a run, elsewhere in a line now and then, with --quiet not at all. It is safe for concurrent use.
type progress struct {
	mu     sync.Mutex
	e      *env
	live   bool // e.err is a terminal that can rewrite a line
	line   *term.Progress
	screen *term.Screen // nil: none is open
	view   *view
}

func (e *env) progress() *progress {
	live := term.IsScreen(fileOf(e.err))
	e.shown = &progress{e: e, live: live, line: term.NewProgress(e.err, live)}
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
	p.view = &view{tally: f, color: p.e.color(p.e.err)}
	p.screen = term.OpenScreen(p.e.err.(*os.File), p.view.lines)
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
		p.view.tally.SetStage(s.What, s.Done, s.Total)
	}
	p.mu.Unlock()
	p.show(s.Done == s.Total, "%s", s.Text)
}

func (p *progress) write(final bool, line func() string) {
	if !p.e.quiet {
		p.line.Show(final, line)
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
	p.line.End()
	p.e.say("%s", text)
}

// end leaves the live line or the screen, so that other words can follow. What the screen said that
// matters later is said again.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line.End()
	if p.screen == nil {
		return
	}
	p.screen.Close()
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
		p.screen.Leave()
	}
}
