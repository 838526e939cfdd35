package modes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"imgcluster/cluster/sample"
	"imgcluster/modes/runlog"
	"imgcluster/modes/stress"
	"imgcluster/modes/stress/load"
	"imgcluster/modes/term"
)

// busy returns the tally of a run that is half done, with everything that can be shown.
func busy(nodes int) *stress.Tally {
	ids := make([]int, nodes)
	for i := range ids {
		ids[i] = i + 1
	}
	f := stress.NewTally(load.Options{Run: runlog.Run{
		Nodes:       ids,
		Count:       200,
		Concurrency: 8,
		Rate:        10,
		Arrivals:    "poisson",
		Replicas:    2,
		Delivery:    "broadcast",
		ReadPercent: 20,
	}})
	for i := range 100 {
		due := float64(i) / 10
		f.Take(runlog.Upload{
			Seq:        int64(i + 1),
			Bytes:      10e6,
			StartS:     due + 0.1,
			LatencyS:   0.3,
			ScheduledS: &due,
			OK:         i != 50,
			Attempts:   1 + i%50/49,
			Owner:      1 + i%nodes,
		})
		f.Take(runlog.ReadOp{StartS: due, LatencyS: 0.1, OK: true})
	}
	for s := range 2 {
		at := float64(9 + s)
		for _, id := range ids {
			f.Take(runlog.NodeSample{
				TS: at, ID: id, Up: id != 2,
				Node: sample.Node{
					RSSBytes:      248e6,
					DiskFreeBytes: 70.1e9,
					CPUS:          at * 0.5,
					NetRxBytes:    int64(at * 100e6),
					NetTxBytes:    int64(at * 1e6),
					OwnedBytes:    330e6,
				},
			})
		}
		f.Take(runlog.ClientSample{
			TS: at,
			Client: sample.Client{
				RSSBytes:  99e6,
				CPUS:      at * 0.3,
				InFlight:  7,
				LateS:     0.5,
				SentBytes: 3e9,
			},
		})
	}
	f.Take(runlog.Event{
		TS:     9.5,
		Kind:   runlog.EventNodeDown,
		Node:   2,
		Detail: "timeout\x1b[2J\r\n" + strings.Repeat("long ", 60),
	})
	return f
}

// screenOf returns the lines of a view on a screen of this size.
func screenOf(v *view, width, height int) string { return strings.Join(v.lines(width, height), "\n") }

// expectTexts checks that a screen has all of these texts.
func expectTexts(t *testing.T, screen string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(screen, want) {
			t.Errorf("no %q in\n%s", want, screen)
		}
	}
}

// At every size there are no more lines than fit, none is wider than the screen, and none has control
// characters of a record.
func TestViewFits(t *testing.T) {
	for _, nodes := range []int{1, 3, 40} {
		v := &view{tally: busy(nodes)}
		v.setPhase("12 of 50 images read back")
		for width := 1; width < 220; width += 3 {
			for height := 1; height < 60; height++ {
				lines := v.lines(width, height)
				if len(lines) > height || len(lines) == 0 {
					t.Fatalf("%d lines on %d", len(lines), height)
				}
				for _, l := range lines {
					if utf8.RuneCountInString(l) > width || strings.ContainsAny(l, "\x1b\r\n") {
						t.Fatalf("%d columns of %d: %q", utf8.RuneCountInString(l), width, l)
					}
				}
			}
		}
	}
}

func TestView(t *testing.T) {
	v := &view{tally: busy(3)}
	expectTexts(t, screenOf(v, 80, 24),
		"broadcast · 10/s poisson · 2 copies · 20 % reads",
		"00:10\n",
		" 50 %  100 of 200  ETA 00:10",
		"9.6/s  ▅████▇██▇█",
		"average 9.6/s",
		"p50 401 ms   p99 401 ms   max 401 ms   from when it was due",
		"service          p50 301 ms   p99 301 ms   max 301 ms   500 ms behind",
		"7 in flight   1 failed   2 retried   100 reads, 0 failed\n",
		"node   state    share     owns   memory disk free    CPU         rx         tx",
		"1      up      34.3 %   330 MB   248 MB   70.1 GB   50 %   100 MB/s  1.00 MB/s",
		"2      down    33.3 %        -",
		"client 99.0 MB of memory, CPU 30 %, 3.00 GB sent",
		"9.5 s  node 2 down: timeout",
		"Ctrl-C",
	)
	v.tally.Waiting.Store(12)
	expectTexts(t, screenOf(v, 100, 24), "500 ms behind, 12 wait for memory\n")
	v.color = true
	expectTexts(t, screenOf(v, 80, 24), "\x1b[31m1 failed\x1b[0m", "\x1b[31mdown  \x1b[0m")
}

// A small screen leaves out what matters least.
func TestSmallView(t *testing.T) {
	v := &view{tally: busy(3)}
	for _, test := range []struct {
		width, height int
		leftOut       []string
	}{
		{60, 24, []string{" rx", " tx"}},
		{40, 24, []string{"memory  ", "disk free"}},
		{80, 12, []string{"Ctrl-C", "\n\n"}},
	} {
		screen := screenOf(v, test.width, test.height)
		expectTexts(t, screen, "1 failed", "share")
		for _, text := range test.leftOut {
			if strings.Contains(screen, text) {
				t.Errorf("%q on %dx%d:\n%s", text, test.width, test.height, screen)
			}
		}
	}
}

// While images are read back, the bar and the time left are those of that stage, and the clock continues.
func TestViewReadBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := busy(3)
		v := &view{tally: f}
		for _, step := range []struct {
			done int64
			want []string
		}{
			{0, []string{"00:10\n", "   0 %  0 of 100 read back\n"}},
			{25, []string{"00:40\n", "  25 %  25 of 100 read back  ETA 01:30\n"}},
			{50, []string{"01:10\n", "  50 %  50 of 100 read back  ETA 01:00\n"}},
			{100, []string{"01:40\n", " 100 %  100 of 100 read back\n"}},
		} {
			if step.done > 0 {
				<-time.After(30 * time.Second)
			}
			f.SetStage("read back", step.done, 100)
			expectTexts(t, screenOf(v, 80, 24), step.want...)
		}
		<-time.After(5 * time.Second)
		if text := v.lines(80, 24)[0]; !strings.HasSuffix(text, " 01:45") {
			t.Errorf("the clock has stopped: %s", text)
		}
		if got := figuresLine(f.Figures()); !strings.HasPrefix(got, "100 of 200 uploads, ") {
			t.Errorf("the line of the uploads is %q", got)
		}
	})
}

// Before the first sample, figures are shown as unknown.
func TestViewAtFirst(t *testing.T) {
	run := runlog.Run{Nodes: []int{1, 2}, Count: 5, Concurrency: 1}
	screen := screenOf(&view{tally: stress.NewTally(load.Options{Run: run})}, 80, 24)
	expectTexts(t, screen,
		"\n1      -            -        -",
		"\n2      -            -",
		"\nclient -\n",
		"p50 -   p99 -   max -\n",
	)
	if strings.ContainsAny(screen, "?") || strings.Contains(screen, "0.0 %") {
		t.Error(screen)
	}
}

func TestFiguresLine(t *testing.T) {
	resumed := stress.NewTally(load.Options{
		Run:    runlog.Run{DurationS: 60},
		Resume: &load.Resume{AtS: 20, Done: map[int64]bool{1: true}},
	})
	resumed.Take(runlog.Upload{Seq: 2, StartS: 21, LatencyS: 4, OK: true, Bytes: 1000, Attempts: 1})
	for want, tally := range map[string]*stress.Tally{
		"100 of 200 uploads, 9.6/s, 96.1 MB/s, p99 401 ms, 1 failed, 100 reads, 0 failed, 00:10 left": busy(3),
		"25 of 60 s, 2 uploads, 0.2/s, 200 B/s, p99 4.01 s, 0 failed, 00:35 left":                     resumed,
	} {
		if got := figuresLine(tally.Figures()); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// screenEnv makes this test binary a program that shows a screen on standard error, and then does what
// the variable says.
const screenEnv = "TEST_BINARY_SHOWS_SCREEN"

func init() {
	what := os.Getenv(screenEnv)
	if what == "" {
		return
	}
	draws := 0
	heard := ""
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, syscall.SIGINT, syscall.SIGTERM)
	s := term.OpenScreen(os.Stderr, func(width, height int) []string {
		if draws++; what == "bad draw" && draws > 1 {
			panic("boom")
		}
		select {
		case <-interrupts:
			heard = "interrupted"
		default:
		}
		return []string{fmt.Sprintf("at %dx%d.", width, height), heard}
	})
	(&hangup{do: func() { // as Main ends a run
		s.Close()
		fmt.Fprintln(os.Stderr, "hung up")
		os.Exit(exitFailed)
	}}).watch()
	switch what {
	case "end":
		s.Close()
		fmt.Fprintln(os.Stderr, "after")
		os.Exit(0)
	case "panic":
		load.Run(context.Background(), load.Options{
			Run:    runlog.Run{Count: 1, Concurrency: 1},
			Users:  []string{"u"},
			Source: panics{},
			Target: idle{},
			Log:    runlog.NewWriter(io.Discard),
			Crash:  s.Leave,
		})
	}
	<-time.After(waitMax) // a signal comes first
	os.Exit(3)
}

// outputOf collects what a program writes to a terminal.
func outputOf(user *os.File) *lines {
	all := &lines{}
	go func() {
		buf := make([]byte, 4096)
		for n, err := user.Read(buf); err == nil; n, err = user.Read(buf) {
			all.Write(buf[:n])
		}
	}()
	return all
}

// panics is a Source that panics.
type panics struct{}

func (panics) Open(context.Context, int64, *load.Memory) (load.Image, error) { panic("boom") }

// errDown is the error of a node that does not answer.
var errDown = errors.New("it is down")

// idle is a Target that gets no uploads.
type idle struct{ load.Target }

func (idle) Status(context.Context) ([]runlog.NodeSample, error) { return nil, errDown }

// screened is a program with a screen on a terminal.
type screened struct {
	*exec.Cmd
	out   *lines
	user  *os.File
	ended chan struct{}
}

func startScreen(t *testing.T, what string) *screened {
	t.Helper()
	user, tty := terminal(t)
	s := &screened{
		Cmd:   program(t, t.TempDir()),
		out:   outputOf(user),
		user:  user,
		ended: make(chan struct{}),
	}
	s.resize(t, 80, 24)
	s.Env = append(os.Environ(), screenEnv+"="+what)
	s.Stderr = tty
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.Wait() // the error is in its state
		close(s.ended)
	}()
	t.Cleanup(func() {
		s.Process.Kill() // when the test has failed
		<-s.ended
	})
	return s
}

func (s *screened) resize(t *testing.T, width, height uint16) {
	t.Helper()
	size := &unix.Winsize{Row: height, Col: width}
	if err := unix.IoctlSetWinsize(int(s.user.Fd()), unix.TIOCSWINSZ, size); err != nil {
		t.Fatal(err)
	}
}

func (s *screened) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := s.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// awaitText waits for a text on the terminal.
func (s *screened) awaitText(t *testing.T, text string) {
	t.Helper()
	eventually(t, text, func() bool { return strings.Contains(s.out.String(), text) })
}

// However a program ends, its terminal is restored: wrapping, the cursor, and what it showed before.
func TestScreenRestores(t *testing.T) {
	t.Parallel()
	for what, test := range map[string]struct {
		signals []syscall.Signal // the last one ends the program
		after   string           // what the program prints after the screen
	}{
		"end":       {nil, "after"},
		"panic":     {nil, "panic: boom"},
		"bad draw":  {nil, "panic: boom"},
		"terminate": {[]syscall.Signal{syscall.SIGTERM, syscall.SIGTERM}, ""},
		"interrupt": {[]syscall.Signal{syscall.SIGINT, syscall.SIGINT}, ""},
		"quit":      {[]syscall.Signal{syscall.SIGQUIT}, "SIGQUIT: quit"},
		"hang up":   {[]syscall.Signal{syscall.SIGHUP}, "hung up"},
	} {
		t.Run(what, func(t *testing.T) {
			if slices.Contains(test.signals, syscall.SIGHUP) && signal.Ignored(syscall.SIGHUP) {
				t.Skip("the tests run under nohup: SIGHUP is ignored")
			}
			s := startScreen(t, what)
			if len(test.signals) > 0 {
				s.awaitText(t, "at 80x24.")
			}
			for i, sig := range test.signals {
				if i > 0 { // since two pending signals are one
					s.awaitText(t, "interrupted")
				}
				s.signal(t, sig)
			}
			<-s.ended
			eventually(t, "the terminal is restored", func() bool {
				out, entered := strings.CutPrefix(s.out.String(), term.EnterScreen)
				_, after, left := strings.Cut(out, term.LeaveScreen)
				return entered && left && !strings.Contains(after, term.LeaveScreen) &&
					strings.Contains(after, test.after)
			})
			state := s.ProcessState.Sys().(syscall.WaitStatus)
			if last := len(test.signals) - 1; last >= 0 && test.after == "" && state.Signal() != test.signals[last] {
				t.Errorf("it ended with %v", s.ProcessState)
			}
		})
	}
}

// The screen follows the size of the terminal. A program that is stopped restores the terminal, and shows the
// screen again when it continues.
func TestScreenResizes(t *testing.T) {
	t.Parallel()
	s := startScreen(t, "wait")
	s.awaitText(t, "at 80x24.")
	s.resize(t, 132, 50)
	s.signal(t, syscall.SIGWINCH)
	s.awaitText(t, "at 132x50.")
	s.signal(t, syscall.SIGTSTP)
	s.awaitText(t, term.LeaveScreen)
	eventually(t, "it is stopped", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.Process.Pid))
		return err == nil && strings.Contains(string(stat), ") T ")
	})
	s.signal(t, syscall.SIGCONT)
	eventually(t, "the screen is shown again", func() bool {
		return strings.Count(s.out.String(), term.EnterScreen) == 2
	})
}
