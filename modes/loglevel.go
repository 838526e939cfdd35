package modes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

func newLogLevel(e *env) *cobra.Command {
	var nodes []int
	cmd := &cobra.Command{
		Use:   "log-level [LEVEL]",
		Short: "Show or change what running nodes log",
		Long: `Show what the members of the cluster log, or have them log from this severity
on: debug, info, warn or error. A node that is started again logs as its setting
log.level says.`,
		Example:   "  imgcluster log-level\n  imgcluster log-level debug --node 2\n  imgcluster log-level info",
		Args:      args(0, 1),
		ValidArgs: wire.LogLevels,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runLogLevel(cmd.Context(), e, nodes, strings.Join(args, ""))
		},
	}
	cmd.Flags().IntSliceVar(&nodes, "node", nil, "only this `ID`; repeat for more (default all nodes)")
	return cmd
}

// runLogLevel shows the levels of nodes, after it has changed them unless to is empty.
func runLogLevel(ctx context.Context, e *env, nodes []int, to string) error {
	if to != "" && !slices.Contains(wire.LogLevels, to) {
		return usagef("use one of "+strings.Join(wire.LogLevels, ", "), "there is no log level %q", to)
	}
	c, asked, err := e.membersOf(ctx, nodes)
	if err != nil {
		return err
	}
	defer c.Close()
	var failed []error
	for _, n := range asked {
		level, err := levelOf(ctx, c, n, to)
		if err != nil {
			failed = append(failed, err)
			e.say("node %d could not be asked: %v", n.ID, err)
			continue
		}
		if err := e.showLevel(n.ID, level); err != nil {
			return err
		}
	}
	switch len(failed) {
	case 0:
		return nil
	case len(asked):
		return failed[0]
	}
	return &hintedError{errors.New("not all nodes could be asked"), "see imgcluster status, and try again"}
}

func levelOf(ctx context.Context, c *client.Client, n client.Node, to string) (wire.LogLevel, error) {
	if to == "" {
		return c.LogLevel(ctx, n)
	}
	return c.SetLogLevel(ctx, n, to)
}

func (e *env) showLevel(id image.NodeID, level wire.LogLevel) error {
	if e.json {
		return e.printJSON(level)
	}
	_, err := fmt.Fprintf(e.out, "node %d  %s\n", id, level.Level)
	return err
}
