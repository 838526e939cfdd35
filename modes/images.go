package modes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"imgcluster/cluster/image"
)

func newLs(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "ls [USER[/PREFIX]]",
		Short:   "List a user's images",
		Example: "  imgcluster ls alice\n  imgcluster ls alice/holiday/ --json",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runLs(cmd.Context(), e, append(args, defaultUser)[0])
		},
	}
}

func runLs(ctx context.Context, e *env, what string) error {
	user, prefix, _ := strings.Cut(what, "/")
	_, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	table := tabwriter.NewWriter(e.out, 0, 0, 2, ' ', 0)
	defer table.Flush()
	enc := json.NewEncoder(e.out)
	count, bytes := 0, int64(0)
	for info, err := range c.All(ctx, user, prefix) {
		if err != nil {
			return err
		}
		count, bytes = count+1, bytes+info.Bytes
		if e.json {
			enc.Encode(info)
			continue
		}
		fmt.Fprintf(table, "%s\t%s\towner %d\tcopies %s\t%s\n", info.Created.Local().Format("2006-01-02 15:04:05"),
			formatBytes(info.Bytes), info.Owner, formatNodes(info.Replicas), info.Name)
	}
	table.Flush()
	e.say("%d images, %s", count, formatBytes(bytes))
	return nil
}

func newRm(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "rm USER/NAME...",
		Short: "Delete images",
		Args:  usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runRm(cmd.Context(), e, args)
		},
	}
}

func runRm(ctx context.Context, e *env, names []string) error {
	for _, n := range names {
		if _, _, err := splitImage(n); err != nil {
			return err
		}
	}
	_, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	var failed error
	for _, n := range names {
		user, name, _ := splitImage(n)
		if err := c.Delete(ctx, user, name); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", n, err))
			continue
		}
		e.say("deleted %s", n)
	}
	return failed
}

func newStat(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "stat USER/NAME",
		Short: "Show what is recorded of an image",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runStat(cmd.Context(), e, args[0])
		},
	}
}

func runStat(ctx context.Context, e *env, what string) error {
	user, name, err := splitImage(what)
	if err != nil {
		return err
	}
	_, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	info, err := c.Head(ctx, user, name)
	if err != nil {
		return err
	}
	if e.json {
		return json.NewEncoder(e.out).Encode(info)
	}
	_, err = fmt.Fprintf(e.out, "image    %s/%s\nsize     %s (%d bytes)\nsha256   %s\nversion  %d\nowner    node %d\ncopies   %s\nshard    %d\ncreated  %s\n",
		user, info.Name, formatBytes(info.Bytes), info.Bytes, info.SHA256, info.Version, info.Owner,
		formatNodes(info.Replicas), info.Shard, info.Created.Local().Format("2006-01-02 15:04:05.000 -07:00"))
	return err
}

// formatBytes writes a size for people, in powers of ten.
func formatBytes(n int64) string {
	switch {
	case n >= 1e12:
		return fmt.Sprintf("%.2f TB", float64(n)/1e12)
	case n >= 1e9:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d B", n)
}

func formatNodes(ids []image.NodeID) string {
	s := make([]string, len(ids))
	for i, id := range ids {
		s[i] = fmt.Sprint(id)
	}
	return strings.Join(s, ", ")
}
