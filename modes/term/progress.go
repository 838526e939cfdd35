package term

import (
	"fmt"
	"io"
	"time"

	"imgcluster/cluster/printable"
)

// The least time between two updates of a Progress: where each is a line of its own, and on a terminal, where
// one line is rewritten.
const (
	ProgressEvery     = 5 * time.Second
	progressEveryLive = 200 * time.Millisecond
)

// Progress shows how far a command is: on a terminal in one line that is rewritten, elsewhere in a new
// line every few seconds. It is not safe for concurrent use.
type Progress struct {
	w    io.Writer
	live bool
	open bool      // the rewritten line has no newline yet
	last time.Time // of the last update
}

// NewProgress returns a Progress on w. live says that w is a terminal that can rewrite a line.
func NewProgress(w io.Writer, live bool) *Progress {
	return &Progress{w: w, live: live, last: time.Now()}
}

// Show writes the text that line returns, unless the last update was a moment ago. A final one is always
// written, and stays.
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

// End ends the rewritten line, so that other output can follow.
func (p *Progress) End() {
	if p.open {
		fmt.Fprintln(p.w)
	}
	p.open = false
}
