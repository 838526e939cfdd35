package modes

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"imgcluster/cluster/printable"
	"imgcluster/config"
	"imgcluster/modes/term"
)

func newConfig(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show or check the configuration",
		Args:  onlyCommands,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var verbose bool
	show := &cobra.Command{
		Use:   "show",
		Short: "Print every setting, its value and where it comes from",
		Long: `Print every setting, its value and where it comes from: default, file,
environment or flag, each outweighed by the next. A setting such as
cluster.replicas is IMGCLUSTER_CLUSTER_REPLICAS in the environment and --set
cluster.replicas=1 as a flag.`,
		Example: "  imgcluster config show\n  imgcluster config show --verbose --config other.yaml",
		Args:    args(0, 0),
		RunE:    func(*cobra.Command, []string) error { return runConfigShow(e, verbose) },
	}
	show.Flags().BoolVar(&verbose, "verbose", false, "say what each setting means, too")
	cmd.AddCommand(show, &cobra.Command{
		Use:     "validate",
		Short:   "Check the configuration and list everything that is wrong with it",
		Example: "  imgcluster config validate\n  imgcluster config validate --json",
		Args:    args(0, 0),
		RunE:    func(*cobra.Command, []string) error { return runConfigValidate(e) },
	})
	return cmd
}

func runConfigShow(e *env, verbose bool) error {
	cfg, err := e.load()
	if err != nil {
		return err
	}
	settings := cfg.Settings()
	if e.json {
		return e.printJSON(settings)
	}
	if err := writeSettings(e.out, settings, verbose); err != nil {
		return err
	}
	if !verbose {
		e.say("What they mean: imgcluster config show --verbose")
	}
	return nil
}

// writeSettings prints the settings in columns, each node in a line of its own.
func writeSettings(w io.Writer, settings []config.Setting, verbose bool) error {
	keys, values, origins := 0, 0, 0
	for _, s := range settings {
		keys = max(keys, len(s.Key))
		origins = max(origins, len(s.Origin))
		for value := range strings.SplitSeq(s.Value, ",") {
			values = max(values, len(value))
		}
	}
	values = min(values, max(term.Width-keys-origins, 0)-len("    ")) // longer ones push their origin on
	var out strings.Builder
	for _, s := range settings {
		key, origin := s.Key, s.Origin
		parts := []string{s.Value}
		if s.Type == "nodes" {
			parts = strings.Split(s.Value, ",")
		}
		for _, value := range parts {
			line := fmt.Sprintf("%-*s  %-*s  %s", keys, key, values, value, origin)
			fmt.Fprintln(&out, strings.TrimRight(line, " "))
			key, origin = "", ""
		}
		if verbose {
			fmt.Fprintf(&out, "%s\n", term.Indent("    ", s.Description))
		}
	}
	_, err := io.WriteString(printable.Writer(w), out.String())
	return err
}

// validation is the JSON of config validate.
type validation struct {
	Valid    bool             `json:"valid"`
	File     string           `json:"file"` // empty: built in
	Problems []config.Problem `json:"problems"`
	Warnings []config.Problem `json:"warnings"`
}

func runConfigValidate(e *env) error {
	cfg, err := e.settings() // prints no warnings, which are listed below
	var problems config.Problems
	if err != nil && (!e.json || !errors.As(err, &problems)) {
		return err
	}
	if e.json {
		v := validation{
			Valid:    err == nil,
			File:     e.path,
			Problems: append([]config.Problem{}, problems...), // [] in JSON when there is none
			Warnings: []config.Problem{},
		}
		if err == nil {
			v.File = cfg.File
			v.Warnings = append(v.Warnings, cfg.Warnings()...)
		}
		return errors.Join(e.printJSON(v), err)
	}
	fmt.Fprintf(e.out, "%s is valid: %s, %s, %s of each image\n",
		printable.Text(cmp.Or(cfg.File, "the built-in configuration")),
		term.Plural(len(cfg.Cluster.Nodes), "node"),
		term.Plural(cfg.Cluster.DataShards, "data shard"),
		term.Plural(cfg.Cluster.Replicas, "copy"))
	for _, w := range cfg.Warnings() {
		text := term.Indent("", printable.Text("warning: "+w.String()))
		fmt.Fprintf(e.out, "%s\n  hint: %s\n", text, printable.Text(w.Hint))
	}
	return nil
}
