package modes

import (
	"fmt"
	"os"
	"sync"

	"imgcluster/modes/stress"
	"imgcluster/modes/term"
)

// progress shows how far a command is: a run on a screen, and all else in a term.Progress; with --quiet
// nothing. It is safe for concurrent use.
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

// watch opens a screen that shows a run until end, if the terminal can do so. Records that are streamed to a
// terminal would be mixed in: then there is no screen.
func (p *progress) watch(t *stress.Tally) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.live || p.e.quiet || p.e.json && term.Is(fileOf(p.e.out)) {
		return
	}
	p.view = &view{tally: t, color: p.e.color(p.e.err)}
	p.screen = term.OpenScreen(p.e.err.(*os.File), p.view.lines)
}

// run shows the state of a run, unless a screen does.
func (p *progress) run(final bool, t *stress.Tally) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.screen == nil {
		p.write(final, func() string { return figuresLine(t.Figures()) })
	}
}

// show shows how far something else is. A final text stays.
func (p *progress) show(final bool, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.screen != nil {
		p.view.setPhase(fmt.Sprintf(format, args...))
		return
	}
	p.write(final, func() string { return fmt.Sprintf(format, args...) })
}

// stage shows a stage that follows the uploads, on a screen in the bar too.
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

// note shows a line that stays.
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

// end ends the rewritten line or the screen, so that other output can follow. The notes and the last
// state are printed again after a screen.
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

// crash restores the terminal before the process ends by a panic.
func (p *progress) crash() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.screen != nil {
		p.screen.Leave()
	}
}
