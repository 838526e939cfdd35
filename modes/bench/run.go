//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Run is everything that a run of bench found.
type Run struct {
	Machine Machine    `json:"machine"`
	Program string     `json:"program"` // what imgcluster version prints, with the commit
	Commit  string     `json:"commit"`  // of the working copy
	Date    string     `json:"date"`
	Command string     `json:"command"`
	Cells   []Measured `json:"cells"`
	Against *Run       `json:"against,omitempty"` // of another program, in turn with this

	binary string // of the program
}

// Machine is where it ran.
type Machine struct {
	CPU    string  `json:"cpu"`
	Cores  int     `json:"cores"`
	Memory int64   `json:"memory_bytes"`
	Kernel string  `json:"kernel"`
	Go     string  `json:"go"`
	Load   float64 `json:"load"` // average of the last minute, at the beginning
}

// Measured is a cell with its figures of each round, and their medians.
type Measured struct {
	Name string `json:"name"`
	Cell
	Rounds []Figures `json:"rounds"`
	Median Figures   `json:"median"`
}

func build(ctx context.Context, dir string) (string, error) {
	program := filepath.Join(dir, "imgcluster")
	return program, quietly(exec.CommandContext(ctx, "go", "build", "-o", program, "imgcluster"))
}

func newRun(ctx context.Context, program string, cells []Cell) (*Run, error) {
	program, err := filepath.Abs(program) // nodes have working folders of their own
	if err != nil {
		return nil, err
	}
	version, err := exec.CommandContext(ctx, program, "version").Output()
	if err != nil {
		return nil, fmt.Errorf("%s version: %w", program, err)
	}
	// Beside a copy of the source without Git there is no commit.
	commit, _ := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output()
	r := &Run{
		binary:  program,
		Program: firstLine(version),
		Commit:  firstLine(commit),
		Date:    time.Now().UTC().Format(time.RFC3339),
		Command: command(),
	}
	for _, c := range cells {
		r.Cells = append(r.Cells, Measured{Cell: c, Name: c.name()})
	}
	r.Machine = Machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	info, _ := os.ReadFile("/proc/cpuinfo")
	if m := regexp.MustCompile(`(?m)^model name\s*: (.*)$`).FindSubmatch(info); m != nil {
		r.Machine.CPU = string(m[1])
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		r.Machine.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	var system unix.Sysinfo_t
	if unix.Sysinfo(&system) == nil {
		r.Machine.Memory = int64(system.Totalram) * int64(system.Unit)
		r.Machine.Load = float64(system.Loads[0]) / (1 << 16)
	}
	return r, nil
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

// turn runs a cell once.
func (r *Run) turn(ctx context.Context, i int, dir string, seconds float64) (*Measured, error) {
	m := &r.Cells[i]
	figures, err := m.Cell.run(ctx, r.binary, dir, seconds)
	if err == nil {
		m.Rounds = append(m.Rounds, figures)
	}
	return m, err
}

// find returns a cell by its name, or nil.
func (r *Run) find(name string) *Measured {
	i := slices.IndexFunc(r.Cells, func(m Measured) bool { return m.Name == name })
	if i < 0 {
		return nil
	}
	return &r.Cells[i]
}

// finish adds the ratios within each round, and the medians.
func (r *Run) finish() {
	for i := range r.Cells {
		m := &r.Cells[i]
		base, plain := r.find(m.base().name()), r.find(m.plain().name())
		for round, f := range m.Rounds {
			f[toBase] = f[perSecond] / base.Rounds[round][perSecond]
			if m.Secured {
				p := plain.Rounds[round]
				f[cpuToPlain] = (f[clientCPU] + f[nodesCPU]) / (p[clientCPU] + p[nodesCPU])
			}
		}
	}
	for i := range r.Cells {
		m := &r.Cells[i]
		m.Median = Figures{}
		for name := range m.Rounds[0] {
			m.Median[name] = median(m.of(name))
		}
	}
}

// of returns a figure of all rounds. Those without it are left out.
func (m *Measured) of(name string) (values []float64) {
	for _, f := range m.Rounds {
		if v, ok := f[name]; ok {
			values = append(values, v)
		}
	}
	return values
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}
