package modes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"imgcluster/cluster/printable"
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
	l, err := startLocal(ctx, e, cfg, e.path)
	if err != nil {
		return err
	}
	took, nodes := time.Since(began), slices.Clone(l.nodes)
	ctx, end := context.WithCancel(ctx)
	defer end()
	c, err := listenControl(ctx, e, l)
	if err != nil {
		e.warn(fmt.Sprintf("stress --chaos will not reach these nodes: %v", err), "everything else works")
	}
	out := printable.Writer(e.out)
	fmt.Fprintf(out, "%d nodes are ready after %.1f s\n", len(nodes), took.Seconds())
	for _, n := range nodes {
		fmt.Fprintf(out, "  node %d  http://%s  process %d  log %s\n", n.id, n.api, n.cmd.Process.Pid, n.logPath)
	}
	same := e.sameConfig()
	fmt.Fprintf(out, "Store    curl -T photo.png http://%s/v1/images/alice/photo.png\n", nodes[0].api)
	fmt.Fprintf(out, "Look     imgcluster status%s\nTest     imgcluster stress%s\nStop     Ctrl-C\n", same, same)
	if err = e.out.failure(); err == nil {
		err = e.watchNodes(ctx, l)
	}
	end()
	e.say("stopping")
	if c != nil {
		c.close()
	}
	return errors.Join(err, l.shutdown(ctx))
}

// watchNodes tells of nodes that end by themselves, until ctx is done. That all have ended is an
// error.
func (e *env) watchNodes(ctx context.Context, l *localCluster) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case n := <-l.ended:
			if n.asked.Load() {
				continue
			}
			e.printError(e.err, &hintedError{n.failure(), fmt.Sprintf("start it again with: imgcluster server --id %d%s", n.id, e.sameConfig())})
			if l.over() {
				return errAllEnded
			}
		}
	}
}

// errAllEnded says that nothing is left to wait for.
var errAllEnded = errors.New("all nodes have ended")
