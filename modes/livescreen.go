package modes

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"imgcluster/modes/term"
)

// drawEvery is how often the screen is drawn; only lines that changed are sent.
const drawEvery = 500 * time.Millisecond

// ANSI codes: the alternate screen keeps what was on the terminal, and without wrapping a line that a
// terminal finds too wide spoils no other.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
)

// screen draws lines on the whole of a terminal until close, which leaves the terminal as it was. A
// signal that ends or stops the process does so after that.
type screen struct {
	tty     *os.File
	draw    func(width, height int) []string
	signals chan os.Signal
	over    chan struct{} // ends the drawing
	drawn   chan struct{} // it has ended

	mu     sync.Mutex
	open   bool
	width  int
	height int
	shown  []string
}

func openScreen(tty *os.File, draw func(width, height int) []string) *screen {
	s := &screen{tty: tty, draw: draw, signals: make(chan os.Signal, 8), over: make(chan struct{}), drawn: make(chan struct{})}
	signal.Notify(s.signals, syscall.SIGWINCH, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGTSTP, syscall.SIGCONT)
	s.enter()
	go s.loop()
	return s
}

func (s *screen) loop() {
	defer close(s.drawn)
	defer s.leave() // a panic in draw too
	tick := time.NewTicker(drawEvery)
	defer tick.Stop()
	interrupted := false
	for {
		s.redraw()
		select {
		case <-s.over:
			return
		case <-tick.C:
		case sig := <-s.signals:
			switch sig {
			case syscall.SIGWINCH:
			case syscall.SIGTSTP:
				s.leave()
				syscall.Kill(os.Getpid(), syscall.SIGSTOP)
			case syscall.SIGCONT:
				s.enter()
			case syscall.SIGINT, syscall.SIGTERM:
				// The first one drains the run, which others see to; the second ends the process.
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

// die lets a signal do what it does without a screen.
func (s *screen) die(sig syscall.Signal) {
	s.leave()
	signal.Reset(sig)
	syscall.Kill(os.Getpid(), sig)
}

func (s *screen) enter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		s.open, s.shown, s.width = true, nil, 0
		s.tty.WriteString(enterScreen)
	}
}

// leave restores the terminal. It may be called at any time, and again.
func (s *screen) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open {
		s.open = false
		s.tty.WriteString(leaveScreen)
	}
}

// close ends the drawing and restores the terminal.
func (s *screen) close() {
	signal.Stop(s.signals)
	s.leave()
	close(s.over)
	<-s.drawn
}

// redraw sends the lines that are not on the terminal yet.
func (s *screen) redraw() {
	width, height := term.Size(s.tty)
	lines := s.draw(width, height)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		return
	}
	var out strings.Builder
	if width != s.width || height != s.height {
		s.width, s.height, s.shown = width, height, nil
		out.WriteString("\x1b[2J")
	}
	for i := range max(len(lines), len(s.shown)) {
		line, was := "", ""
		if i < len(lines) {
			line = lines[i]
		}
		if i < len(s.shown) {
			was = s.shown[i]
		}
		if line != was {
			fmt.Fprintf(&out, "\x1b[%d;1H\x1b[K%s", i+1, line)
		}
	}
	s.shown = lines
	s.tty.WriteString(out.String())
}
