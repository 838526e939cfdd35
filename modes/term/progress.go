package term

import (
	"fmt"
	"io"
	"time"

	"imgcluster/cluster/printable"
)

// Periods of a Progress: of lines off a terminal, where they stay, and of the one line of a terminal.
const (
	ProgressEvery     = 5 * time.Second
	progressEveryLive = 200 * time.Millisecond
)

// Progress shows how far something is: on a terminal in one line that is rewritten, elsewhere in a line now and
// then. It is not safe for concurrent use.
type Progress struct {
	w    io.Writer
	live bool
	open bool // the live line has no end yet
	last time.Time
}

// NewProgress returns a Progress on w; live: w is a terminal that can rewrite a line.
func NewProgress(w io.Writer, live bool) *Progress {
	return &Progress{w: w, live: live, last: time.Now()}
}

// Show writes the text that line returns, unless the one before is too fresh. A final one is always written, and
// stays.
func (p *Progress) Show(final bool, line func() string) {
	every := ProgressEvery
	if p.live {
		every = progressEveryLive
	}
	if !final && time.Since(p.last) < every {
		return
	}
	p.last = time.Now()
	text := printable.Text(line())
	if !p.live {
		fmt.Fprintln(p.w, text)
		return
	}
	fmt.Fprint(p.w, "\r\x1b[K", text)
	p.open = true
	if final {
		p.End()
	}
}

// End ends the live line, so that other words can follow.
func (p *Progress) End() {
	if p.open {
		fmt.Fprintln(p.w)
	}
	p.open = false
}
