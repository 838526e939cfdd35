//go:build !windows

package modes

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"imgcluster/cluster/printable"
	"imgcluster/cluster/wire"
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
		Example: "  imgcluster up\n  imgcluster up --config other.yaml",
		Args:    args(0, 0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runUp(cmd.Context(), e) },
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
	took := time.Since(began)
	nodes := l.Nodes()
	ctx, end := context.WithCancel(ctx)
	defer end()
	control, err := local.Listen(ctx, l, e.say)
	if err != nil {
		e.warn(fmt.Sprintf("stress --chaos will not reach these nodes: %v", err), "everything else works")
	}
	out := printable.Writer(e.out)
	fmt.Fprintf(out, "%d nodes are ready after %.1f s\n", len(nodes), took.Seconds())
	for _, n := range nodes {
		fmt.Fprintf(out, "  node %d  %s  process %d  log %s\n", n.ID, n.API, n.PID(), n.LogPath)
	}
	same := e.sameConfig()
	if cfg.Secured() { // curl needs an access key
		fmt.Fprintf(out, "Store    imgcluster put photo.png%s\n", same)
	} else {
		fmt.Fprintf(out, "Store    curl -T photo.png %s/v1/images/alice/photo.png\n", nodes[0].API)
	}
	fmt.Fprintf(out, "Look     %s%s, or imgcluster status%s\nTest     imgcluster stress%s\nStop     Ctrl-C\n",
		nodes[0].API, wire.UIPath, same, same)
	if err = e.out.failure(); err == nil {
		err = e.watchNodes(ctx, l)
	}
	end()
	e.say("stopping")
	if control != nil {
		control.Close()
	}
	return errors.Join(err, l.Shutdown(ctx))
}

// watchNodes reports nodes that end by themselves, until ctx ends. It is an error when all have ended.
func (e *env) watchNodes(ctx context.Context, l *local.Cluster) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case n := <-l.Ended():
			if n.Asked() {
				continue
			}
			hint := fmt.Sprintf("start it again with: imgcluster server --id %d%s", n.ID, e.sameConfig())
			e.printError(e.err, &hintedError{n.Failure(), hint})
			if l.AllEnded() {
				return errAllEnded
			}
		}
	}
}

// errAllEnded is the error of up when all nodes have ended by themselves.
var errAllEnded = errors.New("all nodes have ended")
