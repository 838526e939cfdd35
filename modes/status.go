package modes

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/printable"
	"imgcluster/cluster/wait"
	"imgcluster/cluster/wire"
	"imgcluster/modes/stress"
	"imgcluster/modes/term"
)

func newStatus(e *env) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show the cluster's nodes, leaders and counts",
		Example: "  imgcluster status\n  imgcluster status --watch",
		Args:    args(0, 0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runStatus(cmd.Context(), e, watch) },
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
		s, err := settled(ctx, c, watch)
		switch {
		case err != nil && (!watch || ctx.Err() != nil):
			return err
		case err != nil:
			e.printError(e.err, err)
		case e.json:
			err = e.printJSON(s)
		default:
			if watch && term.IsScreen(fileOf(e.out)) {
				io.WriteString(e.out, "\x1b[H\x1b[2J")
			}
			err = writeStatus(printable.Writer(e.out), s)
		}
		if bad := e.out.failure(); bad != nil {
			return bad
		}
		if !watch {
			if err == nil && !s.Ready {
				err = stress.NoLeader(s)
			}
			return err
		}
		if !wait.For(ctx, watchEvery) {
			return nil
		}
	}
}

const (
	// leaderMoves bounds how long status asks again while a shard has no leader: one that is moved to another
	// node has none for some milliseconds, which is nothing to report.
	leaderMoves = time.Second
	leaderEvery = 50 * time.Millisecond
)

// settled returns the cluster's status; one that is not watched waits for leaders that are being moved.
func settled(ctx context.Context, c *client.Client, watch bool) (wire.ClusterStatus, error) {
	until := time.Now().Add(leaderMoves)
	for {
		s, err := c.Cluster(ctx)
		if watch || err != nil || s.Ready || time.Now().After(until) || !wait.For(ctx, leaderEvery) {
			return s, err
		}
	}
}

// degraded returns what a cluster, ready or not, lacks: the end of a line.
func degraded(s wire.ClusterStatus) (text string) {
	down := 0
	for _, n := range s.Nodes {
		if n.State == wire.NodeDown {
			down++
		}
	}
	if down > 0 {
		text += fmt.Sprintf(", %s down", term.Plural(down, "node"))
	}
	if s.UnderReplicated > 0 {
		text += fmt.Sprintf(", %s under-replicated", term.Plural(s.UnderReplicated, "image"))
	}
	return text
}

// writeOutline writes what a cluster shows those who are not its administrators.
func writeOutline(w io.Writer, s wire.ClusterStatus) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "node\tstate\tAPI")
	for _, n := range s.Nodes {
		fmt.Fprintf(t, "%d\t%s\t%s\n", n.ID, n.Condition(), n.API)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "The access key is not an administrator's: loads and figures are left out.")
	return err
}

func writeStatus(w io.Writer, s wire.ClusterStatus) error {
	ready := "ready"
	if !s.Ready {
		ready = "not ready"
	}
	fmt.Fprintf(w, "%s is %s: %d of %s have a leader%s\n", s.Name, ready, s.Leaders(),
		term.Plural(len(s.Shards), "shard"), degraded(s))
	if s.Limited {
		return writeOutline(w, s)
	}
	fmt.Fprintf(w, "%s, %s, %s each, %d under-replicated\n", term.Plural(s.Images, "image"), term.Bytes(s.Bytes),
		term.Plural(s.Replicas, "copy"), s.UnderReplicated)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "node\tstate\tAPI\tleads\towns\t\tstores\tmemory\tfree")
	for _, n := range s.Nodes {
		fmt.Fprintf(t, "%d\t%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\n", n.ID, n.Condition(), n.API, n.LeaderOf,
			n.OwnedImages, term.Bytes(n.OwnedBytes), term.Bytes(n.StoredBytes), term.Bytes(n.RSSBytes),
			term.Bytes(n.DiskFreeBytes))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, warning := range s.Warnings {
		fmt.Fprintln(w, "warning: "+warning)
	}
	_, err := fmt.Fprintln(w, maintenance(s))
	return err
}

// maintenance returns which nodes may be stopped now, one at a time, and why others should not be.
func maintenance(s wire.ClusterStatus) string {
	nodes := map[string][]image.NodeID{} // by why they should not be
	for _, n := range s.Nodes {
		if n.State != wire.NodeDown {
			nodes[n.KeepUp] = append(nodes[n.KeepUp], n.ID)
		}
	}
	free := nodes[""]
	delete(nodes, "")
	if len(nodes) == 0 {
		return "any one node may be stopped"
	}
	var text []string
	if len(free) > 0 {
		text = append(text, "may be stopped, one at a time: "+term.List(free))
	}
	for _, why := range slices.Sorted(maps.Keys(nodes)) {
		text = append(text, fmt.Sprintf("keep up %s: %s", term.List(nodes[why]), why))
	}
	return strings.Join(text, "\n")
}
