package modes

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"imgcluster/genimg"
	"imgcluster/modes/term"
)

type generateOptions struct {
	count   int
	out     string
	spec    genimg.Spec
	workers int
}

func newGenerate(e *env) *cobra.Command {
	o := generateOptions{}
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Write the test set of noise images",
		Long: `Write stress_image_1.png and so on: square PNGs of incompressible noise in four
classes. The same seed gives the same bytes. The stress test makes the same
images in memory and does not need the files.`,
		Example: "  imgcluster generate --count 1500 --out images\n" +
			"  imgcluster generate --count 8 --min-pixels 200 --max-pixels 400",
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return runGenerate(cmd.Context(), e, o) },
	}
	cmd.Flags().IntVar(&o.count, "count", 1500, "number of images")
	cmd.Flags().StringVar(&o.out, "out", "stress_images", "folder to write to, made in one that is there")
	cmd.Flags().IntVar(&o.workers, "workers", 0, "images made at once (default one a processor)")
	specFlags(cmd, &o.spec)
	return cmd
}

// specFlags adds the options of the image set to a command.
func specFlags(cmd *cobra.Command, s *genimg.Spec) {
	cmd.Flags().Uint64Var(&s.Seed, "seed", 1, "seed of the images")
	cmd.Flags().IntVar(&s.MinPixels, "min-pixels", genimg.MinPixelsDefault, "smallest side")
	cmd.Flags().IntVar(&s.MaxPixels, "max-pixels", genimg.MaxPixelsDefault, "largest side")
}

func runGenerate(ctx context.Context, e *env, o generateOptions) error {
	cfg, err := e.load()
	if err != nil {
		return err
	}
	if info, err := os.Stat(o.out); err == nil && !info.IsDir() {
		return usagef("name a folder with --out", "%s is not a folder", o.out)
	}
	if parent := filepath.Dir(o.out); !isFolder(parent) {
		return usagef("make it, or name another folder with --out", "there is no folder %s", parent)
	}
	began := time.Now()
	p := e.progress()
	err = genimg.Generate(ctx, o.spec, o.count, o.out, o.workers, func(done int, bytes int64) {
		p.show(done == o.count, "%d of %d images, %s, %s", done, o.count, term.Bytes(bytes),
			bytesPerSecond(float64(bytes)/time.Since(began).Seconds()))
	})
	p.end()
	if err != nil {
		return err
	}
	sum := o.spec.Summary(o.count)
	if e.json {
		return e.printJSON(sum)
	}
	return writeSummary(e.out, sum, len(cfg.Cluster.Nodes))
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// writeSummary prints the sizes of a set of images.
func writeSummary(w io.Writer, s genimg.Summary, nodes int) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "class\timages\tpixels\tbytes\taverage\t")
	for _, c := range s.Classes {
		if c.Images > 0 {
			fmt.Fprintf(t, "%s\t%d\t%d-%d\t%s\t%s\t\n", c.Class, c.Images, c.MinPixels, c.MaxPixels,
				term.Bytes(c.Bytes), term.Bytes(c.Bytes/int64(c.Images)))
		}
	}
	fmt.Fprintf(t, "total\t%d\t\t%s\t%s\t\n", s.Images, term.Bytes(s.Bytes), term.Bytes(s.Average()))
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "broadcast to %d nodes: %s\n", nodes, term.Bytes(s.Broadcast(nodes)))
	return err
}
