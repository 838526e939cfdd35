package modes

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func newUp(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "up",
		Short: "Run three nodes on this machine until Ctrl-C",
		Long: `Run every node of a loopback configuration as a process of its own: without a
configuration file, three nodes on 127.0.0.1:8001 to 8003, with their data and logs
under ./imgcluster-data. The data stays; the next up goes on with it.`,
		Args: usageArgs(cobra.NoArgs),
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
	fmt.Fprintf(e.out, "%d nodes are ready after %.1f s\n", len(l.nodes), time.Since(began).Seconds())
	for _, n := range l.nodes {
		fmt.Fprintf(e.out, "  node %d  http://%s  process %d  log %s\n", n.id, n.api, n.cmd.Process.Pid, n.logPath)
	}
	fmt.Fprintf(e.out, "Store an image:  curl -T photo.png http://%s/v1/images/alice/photo.png\n", l.nodes[0].api)
	fmt.Fprintf(e.out, "Test it:         imgcluster stress\nStop:            Ctrl-C\n")
	for _, n := range l.nodes {
		go func() {
			<-n.exited
			if ctx.Err() == nil {
				fmt.Fprintf(e.err, "imgcluster: %v; start it again with: imgcluster server --id %d\n", n.failure(), n.id)
			}
		}()
	}
	l.wait(ctx)
	e.say("stopping")
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Timeouts.Shutdown+stopMargin)
	defer cancel()
	return l.stop(stopping)
}

// stopMargin is what a node gets beyond its own bound before it is killed.
const stopMargin = 5 * time.Second

// wait returns when ctx is done or all nodes have ended.
func (l *localCluster) wait(ctx context.Context) {
	for _, n := range l.nodes {
		select {
		case <-ctx.Done():
			return
		case <-n.exited:
		}
	}
}
