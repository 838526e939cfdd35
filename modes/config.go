package modes

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

func newConfig(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show or check the configuration",
		Args:  usageArgs(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "show",
		Short: "Print every setting, its value, where it comes from, and what it means",
		Args:  usageArgs(cobra.NoArgs),
		RunE:  func(*cobra.Command, []string) error { return runConfigShow(e) },
	}, &cobra.Command{
		Use:   "validate",
		Short: "Check the configuration and list everything that is wrong with it",
		Args:  usageArgs(cobra.NoArgs),
		RunE:  func(*cobra.Command, []string) error { return runConfigValidate(e) },
	})
	return cmd
}

func runConfigShow(e *env) error {
	cfg, err := e.load()
	if err != nil {
		return err
	}
	settings := cfg.Settings()
	if e.json {
		return json.NewEncoder(e.out).Encode(settings)
	}
	t := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
	for _, s := range settings {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", s.Key, s.Value, s.Origin, s.Description)
	}
	return t.Flush()
}

func runConfigValidate(e *env) error {
	cfg, err := e.load()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.out, "valid: %d nodes, %d data shards, %d copies of each image\n",
		len(cfg.Cluster.Nodes), cfg.Cluster.DataShards, cfg.Cluster.Replicas)
	return err
}
