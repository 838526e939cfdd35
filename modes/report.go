package modes

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"imgcluster/modes/result"
)

func newReport(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "report LOG",
		Short: "Judge the log of a stress run",
		Long: `Judge the log of a stress run, - for standard input. Exit status 99 when a check or an
upload failed.`,
		Example: "  imgcluster report log.jsonl\n  imgcluster report log.jsonl --json",
		Args:    args(1, 1),
		RunE:    func(_ *cobra.Command, args []string) error { return runReport(e, args[0]) },
	}
}

func runReport(e *env, path string) error {
	in := e.in
	if path != stdin {
		f, err := openRegular(path)
		if err != nil {
			return usagef("name the log that stress wrote (default log.jsonl)", "%s: %w", path, err)
		}
		defer f.Close()
		in = f
	}
	log, err := result.Read(in)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return e.report(log)
}

// openRegular opens a file to read, but no folder.
func openRegular(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, noPath(err)
	}
	if info, err := f.Stat(); err != nil || info.IsDir() {
		f.Close()
		return nil, errors.Join(err, errFolder)
	}
	return f, nil
}

var errFolder = errors.New("it is a folder")

// report prints a run's report; errVerdict when a check failed.
func (e *env) report(log *result.Log) error {
	r := result.Compute(log)
	var err error
	if e.json {
		err = r.WriteJSON(e.out)
	} else {
		err = r.WriteText(e.out, result.TextOptions{Color: e.color(e.out)})
	}
	if err == nil && !r.Verdict.Passed {
		err = errVerdict
	}
	return err
}
