package modes

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"imgcluster/modes/result"
)

func newReport(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "report log.jsonl",
		Short: "Judge the log of a stress run",
		Long:  "Judge the log of a stress run. Exit status 99 when a check failed.",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE:  func(_ *cobra.Command, args []string) error { return runReport(e, args[0]) },
	}
}

func runReport(e *env, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return usagef("name the log that stress wrote", "%v", err)
	}
	defer f.Close()
	log, err := result.Read(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return e.report(log)
}

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
