package modes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"imgcluster/cluster/durable"
	"imgcluster/cluster/oserr"
	"imgcluster/config"
	"imgcluster/modes/report"
	"imgcluster/modes/report/render"
	"imgcluster/modes/runlog"
)

// reportOptions are the options of a report.
type reportOptions struct {
	html     string // file of the HTML report
	compare  string // log of the run to compare with
	csv      bool
	markdown bool
}

func newReport(e *env) *cobra.Command {
	var o reportOptions
	cmd := &cobra.Command{
		Use:   "report LOG...",
		Short: "Judge the log of a stress run",
		Long: `Judge the logs of stress runs, - for standard input, also in gzip: as text, or
with --json, --csv or --markdown. --html writes a page with charts beside that.
--compare sets the figures beside those of another log and says which
differences exceed noise.`,
		Example: "  imgcluster report log.jsonl\n  imgcluster report log.jsonl --html report.html\n" +
			"  imgcluster report today.jsonl --compare yesterday.jsonl",
		Args: args(1, anyNumber),
		RunE: func(_ *cobra.Command, args []string) error { return runReport(e, o, args...) },
	}
	o.flags(cmd)
	return cmd
}

// flags adds the options of a report and the limits of its checks to a command.
func (o *reportOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.html, "html", "", "write the report as a page with charts to this `file`")
	f.StringVar(&o.compare, "compare", "", "compare with the run of this `log`")
	f.BoolVar(&o.csv, "csv", false, "print the report as CSV, a figure a line")
	f.BoolVar(&o.markdown, "markdown", false, "print the report as Markdown")
	for _, limit := range []struct{ key, flag string }{
		{"max_stddev", "max-stddev"},
		{"min_success", "min-success"},
		{"max_p99", "max-p99"},
		{"min_throughput", "min-throughput"},
		{"max_slowdown", "max-slowdown"},
		{"max_node_memory", "max-node-memory"},
		{"max_client_memory", "max-client-memory"},
		{"max_growth", "max-growth"},
		{"max_resent", "max-resent"},
		{"min_hash_p", "min-hash-p"},
		{"min_first_choice", "min-first-choice"},
		{"max_pause", "max-pause"},
	} {
		config.AddFlag(f, "report."+limit.key, limit.flag)
	}
}

// limits returns the limits of the checks by the configuration.
func limits(c config.Report) report.Limits {
	return report.Limits{
		StddevPercent:      c.MaxStddev.Float(),
		SuccessPercent:     c.MinSuccess.Float(),
		P99S:               c.MaxP99.Seconds(),
		ThroughputPerS:     c.MinThroughput.Float(),
		SlowdownPercent:    c.MaxSlowdown.Float(),
		NodeRSSBytes:       int64(c.MaxNodeMemory),
		ClientRSSBytes:     int64(c.MaxClientMemory),
		GrowthBytes:        int64(c.MaxGrowth),
		ResentPercent:      c.MaxResent.Float(),
		HashP:              c.MinHashP.Float(),
		FirstChoicePercent: c.MinFirstChoice.Float(),
		PauseS:             c.MaxPause.Seconds(),
	}
}

// check makes sure, before the run, that the report can be made.
func (o *reportOptions) check(e *env) error {
	if forms := count(e.json, o.csv, o.markdown); forms > 1 {
		return usagef("give one of them", "--json, --csv and --markdown at once")
	}
	if o.html == stdin {
		return usagef("name a file with --html; --markdown and --csv print", "--html -: a page is not printed")
	}
	if o.html != "" {
		f, err := createHTML(o.html)
		if err != nil {
			return err
		}
		f.Discard()
	}
	if o.compare != "" {
		f, err := runlog.OpenRegular(o.compare)
		if err != nil {
			return usagef("name the log of another run", "--compare %s: %w", o.compare, err)
		}
		f.Close()
	}
	return nil
}

func count(flags ...bool) (n int) {
	for _, f := range flags {
		if f {
			n++
		}
	}
	return n
}

// runReport reports on the logs; errVerdict when a check of one failed.
func runReport(e *env, o reportOptions, paths ...string) error {
	if err := o.check(e); err != nil {
		return err
	}
	cfg, err := e.load()
	if err != nil {
		return err
	}
	if err := e.checkReportFiles(o, paths); err != nil {
		return err
	}
	var other *runlog.Log
	if o.compare != "" {
		if other, err = e.readLog(o.compare); err != nil {
			return err
		}
	}
	var list render.Reports
	passed := true
	for _, path := range paths {
		log, err := e.readLog(path)
		if err != nil {
			return err
		}
		r := report.Compute(log, limits(cfg.Report))
		r.Log = path
		if other != nil {
			r.Compare(log, other, o.compare)
		}
		passed = passed && r.Verdict.Passed
		list = append(list, r)
	}
	if err := errors.Join(e.printReports(o, list), o.writeHTML(list)); err != nil {
		return err
	}
	if !passed {
		return errVerdict
	}
	return nil
}

// checkCompare makes sure, before a run, that the log to compare with can be read. It is read again after
// the run, since a large one would take memory meanwhile.
func (e *env) checkCompare(o reportOptions) error {
	if o.compare == "" {
		return nil
	}
	if _, err := os.Stat(o.compare); err == nil && !isRegular(o.compare) {
		return usagef("write it into a file first", "--compare %s is not a file, and is read twice", o.compare)
	}
	_, err := e.readLog(o.compare)
	return err
}

func (e *env) readLog(path string) (*runlog.Log, error) {
	in := io.Reader(e.in)
	if path != stdin {
		ctx := context.Background() // there is a report of an interrupted run too
		if !isRegular(path) {
			ctx = e.in.ctx // a pipe may never get a writer
		}
		f, err := await(ctx, func() (*os.File, error) { return runlog.OpenRegular(path) })
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			return nil, usagef("name the log that stress wrote (default log.jsonl)", "%s: %w", path, err)
		}
		defer f.Close()
		in = &input{ctx, f}
	}
	log, err := runlog.Read(in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return log, nil
}

func (e *env) printReports(o reportOptions, list render.Reports) error {
	switch {
	case e.json:
		return list.WriteJSON(e.out)
	case o.csv:
		return list.WriteCSV(e.out)
	case o.markdown:
		return list.WriteMarkdown(e.out)
	}
	return list.WriteText(e.out, render.TextOptions{Color: e.color(e.out)})
}

func isRegular(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// writeHTML writes the HTML report, if one is wanted. The file is replaced as a whole or not at all.
func (o *reportOptions) writeHTML(list render.Reports) error {
	if o.html == "" {
		return nil
	}
	f, err := createHTML(o.html)
	if err != nil {
		return err
	}
	if err = list.WriteHTML(f); err != nil {
		f.Discard()
	} else {
		err = f.Commit()
	}
	if err != nil {
		return fmt.Errorf("--html %s: %w", o.html, oserr.NoPath(err))
	}
	return nil
}

func createHTML(path string) (*durable.File, error) {
	f, err := durable.Create(path)
	if err != nil {
		return nil, usagef("name a file that can be written with --html", "--html %s: %w",
			path, oserr.NoPath(err))
	}
	return f, nil
}
