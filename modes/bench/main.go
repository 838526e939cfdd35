//go:build linux

// Command bench measures imgcluster side by side with what a machine and its network allow: a bare broadcast
// to processes that discard the images or only write them, and a bare file server. It builds the program,
// runs every cell (one kind of load on one kind of target) for some seconds in turn, several rounds of all,
// and writes every figure as JSON and the medians as a table. It is no part of the program.
//
//	go run ./modes/bench                            everything, half an hour
//	go run ./modes/bench --only 'put.* 8 at once'   some cells, and what they are compared with
//	go run ./modes/bench --compare old.json         and the ratios to an older run
//	go run ./modes/bench --against ./old            and those to another binary, in turn with it
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the command line's.
type options struct {
	program string // the binary; empty: built
	against string // another binary; may be empty
	dir     string // data of the nodes
	out     string
	compare string
	only    *regexp.Regexp
	seconds float64
	rounds  int
}

func main() {
	child()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	o := options{only: regexp.MustCompile("")}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&o.program, "program", "", "imgcluster `binary` to measure (default: built from this module)")
	f.StringVar(&o.against, "against", "", "measure this `binary` in turn with it: print the ratios to it")
	f.StringVar(&o.dir, "dir", os.TempDir(), "`folder` on the disk to measure; what is written there is removed")
	f.StringVar(&o.out, "out", "bench.json", "`file` for all figures")
	f.StringVar(&o.compare, "compare", "", "`file` of an older run: print the ratios to it")
	f.Float64Var(&o.seconds, "seconds", 4, "how long a cell runs in each round")
	f.IntVar(&o.rounds, "rounds", 3, "rounds of all cells; with 3 or more a difference can be told from noise")
	f.Func("only", "measure the cells whose names match this `expression`", func(s string) (err error) {
		o.only, err = regexp.Compile(s)
		return err
	})
	if err := f.Parse(args); err != nil {
		return err
	}
	cells := selected(o.only)
	if len(cells) == 0 || o.rounds < 1 || o.seconds <= 0 {
		return fmt.Errorf("nothing to measure: see --only, --rounds and --seconds")
	}
	var old *Run
	if o.compare != "" {
		var err error
		if old, err = readRun(o.compare); err != nil {
			return err
		}
	}
	r, err := measure(ctx, o, cells, progress)
	if err != nil {
		return err
	}
	if err := r.write(o.out); err != nil {
		return err
	}
	r.table(out)
	if r.Against != nil {
		fmt.Fprintf(out, "\nRatios to %s (%s), in turn with it:\n\n", o.against, r.Against.Program)
		compare(out, *r.Against, *r)
	}
	if old != nil {
		fmt.Fprintf(out, "\nRatios to %s (%s, %s):\n\n", o.compare, old.Program, old.Date)
		compare(out, *old, *r)
	}
	return nil
}

// measure runs all cells in turn, so often. Every second round goes backwards, so that what a cell leaves
// behind, in caches and on the disk, meets its neighbours alike.
func measure(ctx context.Context, o options, cells []Cell, progress io.Writer) (*Run, error) {
	dir, err := os.MkdirTemp(o.dir, "imgcluster-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if o.program == "" {
		if o.program, err = build(ctx, dir); err != nil {
			return nil, err
		}
	}
	r, err := newRun(ctx, o.program, cells)
	if err != nil {
		return nil, err
	}
	runs := []*Run{r}
	if o.against != "" {
		if r.Against, err = newRun(ctx, o.against, cells); err != nil {
			return nil, err
		}
		runs = append(runs, r.Against)
	}
	for round := range o.rounds {
		for i := range cells {
			if round%2 == 1 {
				i = len(cells) - 1 - i
			}
			for n, run := range runs {
				began := time.Now()
				m, err := run.turn(ctx, i, filepath.Join(dir, "cell"), o.seconds)
				if err != nil {
					return nil, fmt.Errorf("%s: %s: %w", run.binary, m.Name, err)
				}
				fmt.Fprintf(progress, "%d/%d  %s: %.1f a second (%.1f s)\n", round+1, o.rounds, m.Name,
					m.Rounds[round][perSecond], time.Since(began).Seconds())
				if m.On == onCluster {
					continue
				}
				for _, other := range runs[n+1:] { // what is no part of either program is measured once
					other.Cells[i].Rounds = append(other.Cells[i].Rounds, maps.Clone(m.Rounds[round]))
				}
				break
			}
		}
		slices.Reverse(runs)
	}
	for _, run := range runs {
		run.finish()
	}
	return r, nil
}

// selected returns the cells whose names match, and those that they are compared with.
func selected(only *regexp.Regexp) []Cell {
	var wanted []string
	for _, c := range cells() {
		if only.MatchString(c.name()) {
			wanted = append(wanted, c.name(), c.base().name(), c.plain().name())
		}
	}
	return slices.DeleteFunc(cells(), func(c Cell) bool { return !slices.Contains(wanted, c.name()) })
}

func readRun(path string) (*Run, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &Run{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

func (r *Run) write(path string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// command returns the command line of this run, as a user types it.
func command() string { return strings.Join(append([]string{"bench"}, os.Args[1:]...), " ") }
