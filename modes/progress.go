package modes

import (
	"fmt"
	"sync"
	"time"
)

// Periods of progress: lines off a terminal, where they stay, and the one line of a terminal.
const (
	progressEvery     = 2 * time.Second
	progressEveryLive = 200 * time.Millisecond
)

// progress shows how far a command is: on a terminal in one line that is rewritten, elsewhere in a
// line now and then, with --quiet not at all. It is safe for concurrent use.
type progress struct {
	mu   sync.Mutex
	e    *env
	live bool // e.err is a terminal
	open bool // the live line has no end yet
	last time.Time
}

func (e *env) progress() *progress {
	return &progress{e: e, live: isTerminal(e.err), last: time.Now()}
}

// show writes the state; a final one stays.
func (p *progress) show(final bool, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	every := progressEvery
	if p.live {
		every = progressEveryLive
	}
	if p.e.quiet || !final && time.Since(p.last) < every {
		return
	}
	p.last = time.Now()
	if !p.live {
		fmt.Fprintf(p.e.err, format+"\n", args...)
		return
	}
	fmt.Fprintf(p.e.err, "\r\x1b[K"+format, args...)
	if p.open = true; final {
		p.endLine()
	}
}

// note writes a line of its own.
func (p *progress) note(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLine()
	p.e.say("%s", text)
}

// end leaves the live line, so that other words can follow.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLine()
}

func (p *progress) endLine() {
	if p.open {
		fmt.Fprintln(p.e.err)
	}
	p.open = false
}
