//go:build !windows

package modes

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"imgcluster/cluster"
	"imgcluster/cluster/backup"
	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/printable"
	"imgcluster/config"
	"imgcluster/modes/term"
)

func newRestore(e *env) *cobra.Command {
	var id int
	var lost string
	cmd := &cobra.Command{
		Use:   "restore FILE [--id N]",
		Short: "Make a cluster of one node from a backup, when most nodes are lost",
		Long: `Bring a cluster back whose nodes are lost for good, but for fewer than a
majority. Run it on the machine of one node, with the configuration and the
master key that it had, while no node runs: the node is then the whole cluster,
with the catalog of the backup and with the images that are on its disk. Start
it, and after it the other nodes, with empty data directories or with --replace:
they get their shards and copies from it.

Where a node is left, make the backup of that one just before: it has the newest
catalog. Images of which no copy is left are counted, and with --lost listed in
a file; a copy may still be on the disk of another node, which brings it back
with server --replace. What the node had of Raft is moved into the folder
quarantine of its data directory.`,
		Example: "  imgcluster backup rescue.backup --node 1   # then stop node 1\n" +
			"  imgcluster restore rescue.backup --id 1 --lost lost.txt\n  imgcluster server --id 1",
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("id") {
				id = idUnknown
			}
			return runRestore(cmd.Context(), e, args[0], id, lost)
		},
	}
	cmd.Flags().IntVar(&id, "id", 0, "the node's ID in the configuration (default: of the node on this machine)")
	cmd.Flags().StringVar(&lost, "lost", "", "write the images of which this node has no copy into this `file`")
	config.AddFlag(cmd.Flags(), "node.data_dir", "data-dir")
	return cmd
}

func runRestore(ctx context.Context, e *env, path string, id int, lost string) error {
	cfg, err := e.load()
	if err != nil {
		return err
	}
	if id, err = e.ownID(ctx, cfg, id); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return usagef("give a file that imgcluster backup has written", "%w", err)
	}
	defer f.Close()
	if err := e.checkStopped(ctx, cfg); err != nil {
		return err
	}
	logger, _, err := newLogger(cfg, image.NodeID(id), e.err)
	if err != nil {
		return err
	}
	defer logger.Sync()
	var r cluster.Restored
	restore := func(w io.Writer) (err error) {
		r, err = cluster.Restore(ctx, cfg, image.NodeID(id), f, logger, func(rec *image.Record) error {
			_, err := fmt.Fprintf(w, "%s/%s\tnodes %s\n", rec.User, printable.Text(rec.Name), listed(rec.Replicas()))
			return err
		})
		return err
	}
	if lost == "" {
		err = restore(io.Discard)
	} else {
		err = writeFile(lost, restore)
	}
	if err != nil {
		return err
	}
	return e.tellRestored(id, r, lost)
}

// checkStopped refuses to go on while a node of the configuration answers.
func (e *env) checkStopped(ctx context.Context, cfg *config.Config) error {
	c, err := e.userClient(cfg, client.Broadcast)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, n := range cfg.Cluster.Nodes {
		ctx, cancel := context.WithTimeout(ctx, cfg.Client.Dial)
		_, err := c.NodeCluster(ctx, n.ID)
		cancel()
		if err == nil {
			return usagef("stop all nodes first. A cluster whose majority runs needs no backup: "+
				"start a node that is lost with --replace", "node %d at %s runs", n.ID, n.APIAddr())
		}
	}
	return nil
}

// listed lists nodes in words.
func listed(ids []image.NodeID) string {
	var text []string
	for _, id := range ids {
		text = append(text, fmt.Sprint(id))
	}
	return strings.Join(text, ", ")
}

// tellRestored says what was restored and what comes next.
func (e *env) tellRestored(id int, r cluster.Restored, lost string) error {
	if e.json {
		return e.printJSON(struct {
			Node    int            `json:"node"`
			Backup  backup.Header  `json:"backup"`
			Trailer backup.Trailer `json:"contents"`
			Images  int64          `json:"images"`
			Bytes   int64          `json:"bytes"`
			Missing int64          `json:"missing"`
		}{id, r.Header, r.Trailer, r.Images, r.Bytes, r.Missing})
	}
	out := &strings.Builder{}
	fmt.Fprintf(out, "node %d is restored from the backup that node %d made on %s.\n", id, r.Header.Node,
		r.Header.Created.Format("2006-01-02 15:04:05 MST"))
	if len(r.Trailer.Behind) > 0 {
		fmt.Fprintln(out, "It was made without a majority: what was stored in the last moments may be missing.")
	}
	fmt.Fprintf(out, "%s of %s are known; of %d this node has no copy.\n", term.Plural(int(r.Images), "image"),
		term.Bytes(r.Bytes), r.Missing)
	if r.Missing > 0 && lost != "" {
		fmt.Fprintf(out, "They are listed in %s, with the nodes that had a copy.\n", lost)
	}
	fmt.Fprintf(out, `
Next, in this order:
  imgcluster server --id %d%s
  the other nodes, each with an empty data directory, or with --replace where
  the images on its disk are left
  imgcluster status --watch%s
`, id, e.sameConfig(), e.sameConfig())
	_, err := io.WriteString(e.out, out.String())
	return err
}
