package modes

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/oserr"
	"imgcluster/modes/exchange"
)

type importOptions struct {
	user     string // empty: that of the exports
	paths    []string
	prefix   string
	delivery string
	replace  bool
	anyFile  bool
	atOnce   int
}

func newImport(e *env) *cobra.Command {
	o := importOptions{}
	cmd := &cobra.Command{
		Use:   "import [--user USER] PATH...",
		Short: "Store all images in folders",
		Long: `Store all images in folders under their paths there, and single files under
their base names. A file is an image by its name's ending or by its first bytes.
Others are named and skipped, as are symbolic links in folders; hidden files are
left out.

What the cluster has already, by its SHA-256, is not sent: an import that was
stopped goes on where it was. Another image of the same name is never replaced
without --replace.

In a folder made by export, names and types are those of its manifest, and a
file whose SHA-256 is another one is refused. Without --user each image gets its
own user.`,
		Example: "  imgcluster import --user alice holiday/\n" +
			"  imgcluster import --user alice --prefix 2026/ /mnt/camera\n" +
			"  imgcluster import /mnt/disk/everything",
		Args: args(1, anyNumber),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.paths = args
			return runImport(cmd.Context(), e, o)
		},
	}
	cmd.Flags().StringVar(&o.user, "user", "", "whose images they become (default that of the export)")
	cmd.Flags().StringVar(&o.prefix, "prefix", "", "put before all names, such as 2026/")
	cmd.Flags().BoolVar(&o.replace, "replace", false, "replace other images of the same names")
	cmd.Flags().BoolVar(&o.anyFile, "any-file", false, "store files that are no images too")
	deliveryFlag(cmd.Flags(), &o.delivery, client.Auto)
	concurrencyFlag(cmd.Flags(), &o.atOnce)
	return cmd
}

func runImport(ctx context.Context, e *env, o importOptions) error {
	parts, err := o.parts(e)
	if err != nil {
		return err
	}
	cfg, err := e.load()
	if err != nil {
		return err
	}
	c, err := e.userClient(cfg, client.Delivery(o.delivery))
	if err != nil {
		return err
	}
	defer c.Close()
	m := e.moving("imported", c, o.atOnce)
	for _, user := range slices.Sorted(maps.Keys(parts)) {
		i := &exchange.Import{
			Move: m.part(user), Paths: parts[user], Prefix: o.prefix, Replace: o.replace, AnyFile: o.anyFile,
			BytesMax: int64(cfg.Limits.ImageBytes),
			Chosen:   func(c *client.Choice) { m.progress.note(c.String()) },
		}
		t, partErr := i.Run(ctx)
		m.done.Add(t)
		for _, dir := range i.Incomplete() {
			e.warn(dir+" is an export that did not come to its end: images may be missing in it",
				"export again into the folder, and import it again")
		}
		if err = partErr; err != nil {
			break
		}
	}
	if err == nil && m.done.Of+m.done.Failed == 0 {
		return usagef("name a folder that has images; --any-file stores files of all kinds",
			"there is no image in %s", strings.Join(o.paths, ", "))
	}
	return m.outcome(ctx, err)
}

// parts checks the command and returns what is imported for each user.
func (o importOptions) parts(e *env) (map[string][]string, error) {
	err := errors.Join(checkConcurrency(o.atOnce), client.Delivery(o.delivery).Check())
	if o.user != "" || e.flags != nil && e.flags.Changed("user") {
		err = errors.Join(err, checkUser(o.user))
	}
	if bad := image.CheckName(o.prefix + "x"); bad != nil {
		err = errors.Join(err, &hintedError{bad, "give a --prefix such as 2026/"})
	}
	if err != nil {
		return nil, err
	}
	parts := map[string][]string{}
	for _, path := range o.paths {
		exports, err := exportsAt(path)
		switch {
		case err != nil:
			return nil, err
		case o.user == "" && len(exports) == 0:
			return nil, usagef("name whose images they become with --user, such as --user alice",
				"%s is no export, which would say whose images are in it", path)
		case o.user != "" && len(exports) > 0 && exports[path] == (exchange.Header{}):
			return nil, usagef("leave out --user, or name the folder of one user",
				"%s is an export of several users", path)
		case o.user != "":
			parts[o.user] = append(parts[o.user], path)
		}
		for at, h := range exports {
			if o.user == "" {
				parts[h.User] = append(parts[h.User], at)
			}
		}
	}
	return parts, nil
}

// exportsAt returns the exports that a path is, one or several in a folder; none where it is other files.
func exportsAt(path string) (map[string]exchange.Header, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, usagef("name folders or files that can be read", "%s: %w", path, oserr.NoPath(err))
	}
	if !info.IsDir() {
		return nil, nil
	}
	h, err := exchange.ReadHeader(path)
	switch {
	case err == nil:
		return map[string]exchange.Header{path: h}, nil
	case errors.Is(err, exchange.ErrNoExport):
		return exchange.Exports(path)
	}
	return nil, err
}
