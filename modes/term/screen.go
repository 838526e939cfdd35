package term

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

// DrawEvery is how often a Screen is drawn; only lines that changed are sent.
const DrawEvery = 500 * time.Millisecond

// The ANSI codes at the start and the end of a Screen. The alternate screen keeps what was on the
// terminal. With wrapping off, a line that the terminal finds too wide does not move the others.
const (
	EnterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
	LeaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
)

// Screen draws lines on the whole of a terminal until Close, which restores the terminal. So does a
// signal that ends or stops the process, before it takes effect. It is safe for concurrent use.
type Screen struct {
	tty     *os.File
	draw    func(width, height int) []string
	signals chan os.Signal
	closing chan struct{} // closed to end the drawing
	drawn   chan struct{} // closed when it has ended

	mu     sync.Mutex
	open   bool
	width  int
	height int
	shown  []string // the lines on the terminal
}

// OpenScreen shows on tty what draw returns for its size in columns and lines.
func OpenScreen(tty *os.File, draw func(width, height int) []string) *Screen {
	s := &Screen{
		tty:     tty,
		draw:    draw,
		signals: make(chan os.Signal, 8),
		closing: make(chan struct{}),
		drawn:   make(chan struct{}),
	}
	signal.Notify(s.signals, screenSignals...)
	s.enter()
	go s.loop()
	return s
}

func (s *Screen) loop() {
	defer close(s.drawn)
	defer s.Leave() // also when draw panics
	tick := time.NewTicker(DrawEvery)
	defer tick.Stop()
	interrupted := false
	for {
		s.Redraw()
		select {
		case <-s.closing:
			return
		case <-tick.C:
		case sig := <-s.signals:
			switch {
			case s.paused(sig):
			case sig == syscall.SIGINT || sig == syscall.SIGTERM:
				// The first one drains the run, which is done elsewhere. The second ends the process.
				if interrupted {
					s.die(sig.(syscall.Signal))
					return
				}
				interrupted = true
			default:
				s.die(sig.(syscall.Signal))
				return
			}
		}
	}
}

// die restores the terminal and lets the signal end the process.
func (s *Screen) die(sig syscall.Signal) {
	s.Leave()
	signal.Reset(sig)
	dieOf(sig)
}

func (s *Screen) enter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		s.open = true
		s.shown = nil
		s.width = 0 // so that the next Redraw clears the screen
		s.tty.WriteString(EnterScreen)
	}
}

// Leave restores the terminal. It may be called at any time and more than once.
func (s *Screen) Leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open {
		s.open = false
		s.tty.WriteString(LeaveScreen)
	}
}

// Close ends the drawing and restores the terminal.
func (s *Screen) Close() {
	signal.Stop(s.signals)
	s.Leave()
	close(s.closing)
	<-s.drawn
}

// Redraw sends the lines that are not on the terminal yet.
func (s *Screen) Redraw() {
	width, height := Size(s.tty)
	lines := s.draw(width, height)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		return
	}
	var out strings.Builder
	if width != s.width || height != s.height {
		s.width = width
		s.height = height
		s.shown = nil
		out.WriteString("\x1b[2J")
	}
	for i := range max(len(lines), len(s.shown)) {
		line, before := "", ""
		if i < len(lines) {
			line = lines[i]
		}
		if i < len(s.shown) {
			before = s.shown[i]
		}
		if line != before {
			fmt.Fprintf(&out, "\x1b[%d;1H\x1b[K%s", i+1, line)
		}
	}
	s.shown = lines
	s.tty.WriteString(out.String())
}
