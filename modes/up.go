package modes

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"imgcluster/cluster/printable"
	"imgcluster/modes/local"
)

func newUp(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "up",
		Short: "Run three nodes on this machine until Ctrl-C",
		Long: `Run every node of a loopback configuration as a process of its own: without a
configuration file, three nodes on 127.0.0.1:8001 to 8003, with their data and
logs under ./imgcluster-data. The data stays; the next up goes on with it. While
it runs, stress --chaos can kill, pause and restart these nodes.`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return runUp(cmd.Context(), e) },
	}
}

func runUp(ctx context.Context, e *env) error {
	cfg, err := e.load()
	if err != nil {
		return err
	}
	began := time.Now()
	l, err := e.startLocal(ctx, cfg)
	if err != nil {
		return err
	}
	took, nodes := time.Since(began), l.Nodes()
	ctx, end := context.WithCancel(ctx)
	defer end()
	c, err := local.Listen(ctx, l, e.say)
	if err != nil {
		e.warn(fmt.Sprintf("stress --chaos will not reach these nodes: %v", err), "everything else works")
	}
	out := printable.Writer(e.out)
	fmt.Fprintf(out, "%d nodes are ready after %.1f s\n", len(nodes), took.Seconds())
	for _, n := range nodes {
		fmt.Fprintf(out, "  node %d  http://%s  process %d  log %s\n", n.ID, n.API, n.PID(), n.LogPath)
	}
	same := e.sameConfig()
	fmt.Fprintf(out, "Store    curl -T photo.png http://%s/v1/images/alice/photo.png\n", nodes[0].API)
	fmt.Fprintf(out, "Look     imgcluster status%s\nTest     imgcluster stress%s\nStop     Ctrl-C\n", same, same)
	if err = e.out.failure(); err == nil {
		err = e.watchNodes(ctx, l)
	}
	end()
	e.say("stopping")
	if c != nil {
		c.Close()
	}
	return errors.Join(err, l.Shutdown(ctx))
}

// watchNodes tells of nodes that end by themselves, until ctx is done. That all have ended is an
// error.
func (e *env) watchNodes(ctx context.Context, l *local.Cluster) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case n := <-l.Ended():
			if n.Asked() {
				continue
			}
			e.printError(e.err, &hintedError{n.Failure(), fmt.Sprintf("start it again with: imgcluster server --id %d%s", n.ID, e.sameConfig())})
			if l.AllEnded() {
				return errAllEnded
			}
		}
	}
}

// errAllEnded says that nothing is left to wait for.
var errAllEnded = errors.New("all nodes have ended")
