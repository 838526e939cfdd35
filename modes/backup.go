package modes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/config"
	"imgcluster/modes/term"
)

type backupOptions struct {
	outputOptions
	node int
}

func newBackup(e *env) *cobra.Command {
	var o backupOptions
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Save the catalog: users, keys, and what is known of the images",
		Long: `Have a node write the cluster's catalog into one file, sealed by the master key:
the users' wrapped keys, the access keys, the members, and what is known of each
image. The images themselves are not in it: imgcluster export saves those. The
master key is not in it either: without it the file is good for nothing.

It needs a node that answers, and no majority: the last one of a cluster whose
other nodes are lost can still save what it knows. imgcluster restore makes a
cluster of it again.`,
		Example: "  imgcluster backup catalog-$(date +%F).backup\n  imgcluster backup rescue.backup --node 1",
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.output = args[0]
			return runBackup(cmd.Context(), e, o)
		},
	}
	cmd.Flags().IntVar(&o.node, "node", 0, "the `ID` of the node to ask (default: the first that answers)")
	cmd.Flags().BoolVar(&o.force, "force", false, "replace FILE where it exists")
	return cmd
}

func runBackup(ctx context.Context, e *env, o backupOptions) error {
	path, direct, err := o.destination("catalog.backup")
	if err != nil {
		return err
	}
	cfg, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	node, err := e.toAsk(ctx, cfg, c, o.node)
	if err != nil {
		return err
	}
	var written counter
	write := func(w io.Writer) error { return c.Backup(ctx, node, io.MultiWriter(w, &written)) }
	return e.deliver(ctx, path, direct, write, func() (any, string) {
		return map[string]any{"file": path, "node": node.ID, "bytes": int64(written)},
			fmt.Sprintf("%s  %s from node %d. The images are not in it (imgcluster export), and it needs the "+
				"master key of today", path, term.Bytes(int64(written)), node.ID)
	})
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// toAsk returns the node with this ID, or with 0 the first one that answers. It needs no majority.
func (e *env) toAsk(ctx context.Context, cfg *config.Config, c *client.Client, id int) (client.Node, error) {
	status, err := c.Cluster(ctx)
	nodes := map[image.NodeID]string{}
	for _, n := range cfg.Cluster.Nodes {
		nodes[n.ID] = n.APIAddr()
	}
	for _, n := range status.Nodes {
		nodes[n.ID] = n.API
	}
	if id != 0 {
		addr, ok := nodes[image.NodeID(id)]
		if id < 0 || id > nodeIDMax || !ok {
			return client.Node{}, usagef("use one of "+nodeIDs(cfg), "there is no node %d", id)
		}
		return client.Node{ID: image.NodeID(id), Addr: addr}, nil
	}
	if err != nil {
		return client.Node{}, err
	}
	i := slices.IndexFunc(cfg.Cluster.Nodes, func(n config.Node) bool {
		_, err := c.NodeCluster(ctx, n.ID)
		return err == nil
	})
	if i < 0 {
		return client.Node{}, &hintedError{
			errors.New("no node of the configuration answers"), "see imgcluster status" + e.sameConfig(),
		}
	}
	n := cfg.Cluster.Nodes[i]
	return client.Node{ID: n.ID, Addr: n.APIAddr()}, nil
}
