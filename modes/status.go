package modes

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"imgcluster/cluster/image"
)

func newStatus(e *env) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the cluster's nodes, leaders and counts",
		Args:  usageArgs(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return runStatus(cmd.Context(), e, watch) },
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "show it again every second until Ctrl-C")
	return cmd
}

// watchEvery is the period of status --watch.
const watchEvery = time.Second

func runStatus(ctx context.Context, e *env, watch bool) error {
	_, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		s, err := c.Cluster(ctx)
		switch {
		case err != nil && (!watch || ctx.Err() != nil):
			return err
		case err != nil:
			fmt.Fprintf(e.err, "%v\n", err)
		case e.json:
			err = json.NewEncoder(e.out).Encode(s)
		default:
			if watch && isTerminal(e.out) {
				io.WriteString(e.out, "\x1b[H\x1b[2J")
			}
			err = writeStatus(e.out, s)
		}
		if !watch {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchEvery):
		}
	}
}

func writeStatus(w io.Writer, s image.ClusterStatus) error {
	ready := "ready"
	if !s.Ready {
		ready = "not ready"
	}
	led := 0
	for _, sh := range s.Shards {
		if sh.Leader != 0 {
			led++
		}
	}
	fmt.Fprintf(w, "%s is %s: %d images, %s, %d copies each, %d under-replicated; %d of %d shards have a leader\n",
		s.Name, ready, s.Images, formatBytes(s.Bytes), s.Replicas, s.UnderReplicated, led, len(s.Shards))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "node\tstate\tAPI\tleads\towns\t\tstores\t\tmemory\tdisk free")
	for _, n := range s.Nodes {
		fmt.Fprintf(t, "%d\t%s\t%s\t%d\t%d\t%s\t%d\t%s\t%s\t%s\n", n.ID, n.State, n.API, n.LeaderOf, n.OwnedImages,
			formatBytes(n.OwnedBytes), n.StoredImages, formatBytes(n.StoredBytes), formatBytes(n.RSSBytes), formatBytes(n.DiskFree))
	}
	return t.Flush()
}
