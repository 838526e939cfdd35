//go:build !windows

package modes

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/config"
	"imgcluster/modes/report"
	"imgcluster/modes/report/render"
	"imgcluster/modes/runlog"
)

// runs makes the reports of runs for the dashboard, and starts quick runs: it implements api.Runs. A run is a
// process of its own, as if somebody had typed the command.
type runs struct {
	e   *env
	cfg *config.Config
	ctx context.Context // of the node: a run ends with it

	mu    sync.Mutex
	state wire.Run
	page  []byte
}

func newRuns(ctx context.Context, e *env, cfg *config.Config) *runs {
	return &runs{e: e, cfg: cfg, ctx: ctx, state: wire.Run{
		Possible: cfg.Loopback() && !cfg.Secured(), State: wire.RunNone,
	}}
}

// Report implements api.Runs.
func (s *runs) Report(ctx context.Context, in io.Reader) ([]byte, error) {
	log, err := runlog.Read(&input{ctx, in})
	if err != nil {
		return nil, image.Errorf(image.KindInvalid, "%w", err).WithHint("give the log that stress wrote")
	}
	return s.render(log)
}

func (s *runs) render(log *runlog.Log) ([]byte, error) {
	var page bytes.Buffer
	r := report.Compute(log, limits(s.cfg.Report))
	r.Log = "log.jsonl"
	err := render.Reports{r}.WriteHTML(&page)
	return page.Bytes(), err
}

// State implements api.Runs.
func (s *runs) State() wire.Run {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Page implements api.Runs.
func (s *runs) Page() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.page
}

// ScriptHash implements api.Runs.
func (*runs) ScriptHash() string { return render.ScriptHash() }

// Start implements api.Runs.
func (s *runs) Start(profile string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.state.Possible:
		return image.Errorf(image.KindInvalid, "runs are started from here on loopback alone").
			WithHint("run imgcluster stress on the machine that the load is to come from")
	case profile != "quick":
		return image.Errorf(image.KindInvalid, "profile %.40q", profile).
			WithHint("quick is the profile that is started from here; imgcluster stress has more")
	case s.state.State == wire.RunRunning:
		return image.Errorf(image.KindConflict, "a run is in progress").WithHint("wait until it has ended")
	}
	s.state.State, s.state.Done, s.state.Count, s.state.Problem = wire.RunRunning, 0, 0, ""
	s.page = nil
	go func() {
		page, err := s.run(profile)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.page, s.state.State = page, wire.RunEnded
		if err != nil {
			s.state.State, s.state.Problem = wire.RunFailed, err.Error()
		}
	}()
	return nil
}

// problemBytes is how much of what a run says of its failure is shown.
const problemBytes = 2000

// run runs the stress test and returns the page of its report.
func (s *runs) run(profile string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "imgcluster-run-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "log.jsonl")
	args := append(s.e.configArgs(), "stress", "--profile", profile, "--yes", "--json", "--quiet", "--log", path)
	cmd := exec.CommandContext(s.ctx, program, args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	s.follow(out)
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == exitVerdict {
		err = nil // the report says why
	}
	if err != nil {
		text := said.String()
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(text[:min(len(text), problemBytes)]))
	}
	log, err := s.e.readLog(path)
	if err != nil {
		return nil, err
	}
	return s.render(log)
}

// follow counts the records of a run's log as they are made.
func (s *runs) follow(out io.Reader) {
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadBytes('\n')
		var record struct {
			Type  string `json:"type"`
			Count int64  `json:"count"`
		}
		if json.Unmarshal(line, &record) == nil {
			s.mu.Lock()
			switch record.Type {
			case "run":
				s.state.Count = record.Count
			case "upload":
				s.state.Done++
			}
			s.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}
