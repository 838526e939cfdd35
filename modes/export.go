package modes

import (
	"context"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"imgcluster/cluster/image"
	"imgcluster/cluster/oserr"
	"imgcluster/cluster/printable"
	"imgcluster/cluster/wire"
	"imgcluster/modes/exchange"
)

type exportOptions struct {
	user   string // empty: all
	dir    string
	atOnce int
}

func newExport(e *env) *cobra.Command {
	o := exportOptions{}
	cmd := &cobra.Command{
		Use:   "export [--user USER] DIR",
		Short: "Write all images into a folder, as files",
		Long: `Write all images of a user into a folder, each as an ordinary file under its
name, and compare each with the SHA-256 that the cluster has of it. Without
--user, which is for administrators, each user's images are in DIR/USER.

The folder is empty or not there, or has an export of the same cluster and user,
complete or not: then only images that are not in it as the cluster has them are
read. Files that differ from their images are replaced, those of images that are
gone are named and left.

imgcluster-export.jsonl has a line for each image, with size, SHA-256 and type,
and imgcluster-export.sha256 is for sha256sum -c. Images whose names cannot be
paths, such as "a" beside "a/b", are in imgcluster-export-names; the first of
these files says which is which. The files are not encrypted.`,
		Example: "  imgcluster export --user alice alice-images\n" +
			"  imgcluster export /mnt/disk/everything",
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.dir = args[0]
			return runExport(cmd.Context(), e, o)
		},
	}
	cmd.Flags().StringVar(&o.user, "user", "", "whose images (default those of all users)")
	concurrencyFlag(cmd.Flags(), &o.atOnce)
	return cmd
}

func runExport(ctx context.Context, e *env, o exportOptions) error {
	if err := o.check(e); err != nil {
		return err
	}
	cfg, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	m := e.moving("exported", c, o.atOnce)
	users := []string{o.user}
	dirs := []string{o.dir}
	if o.user == "" {
		if users, dirs, err = m.everyone(ctx, o.dir, cfg.Cluster.Name); err != nil {
			return err
		}
	}
	for i, user := range users {
		x := &exchange.Export{Move: m.part(user), Cluster: cfg.Cluster.Name, Dir: dirs[i]}
		t, partErr := x.Run(ctx)
		m.done.Add(t)
		if err = partErr; err != nil {
			break
		}
	}
	return m.outcome(ctx, err)
}

func (o exportOptions) check(e *env) error {
	if o.dir == "" {
		return usagef("name a folder, such as alice-images", "the folder has no name")
	}
	if o.user != "" || e.flags != nil && e.flags.Changed("user") {
		if err := checkUser(o.user); err != nil {
			return err
		}
	}
	return checkConcurrency(o.atOnce)
}

// everyone returns all users and their folders. It refuses a folder that has anything but such folders, and
// names those of users that are gone.
func (m *moving) everyone(ctx context.Context, dir, cluster string) (users, dirs []string, err error) {
	var removals []wire.Removal
	for u, err := range m.client.Users(ctx, &removals) {
		if kind := image.KindOf(err); kind == image.KindForbidden {
			return nil, nil, &hintedError{err, "export the images of one user, with --user"}
		}
		if err == nil {
			err = image.CheckUser(u.Name)
		}
		if err != nil {
			return nil, nil, err
		}
		users = append(users, u.Name)
		dirs = append(dirs, filepath.Join(dir, u.Name))
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		return nil, nil, usagef("name another folder", "%s cannot be read: %w", dir, oserr.NoPath(err))
	}
	exports, err := exchange.Exports(dir)
	if err != nil && !os.IsNotExist(err) {
		return nil, nil, err
	}
	for _, entry := range entries {
		at := filepath.Join(dir, entry.Name())
		if _, is := exports[at]; entry.Name() != "lost+found" && !is && !slices.Contains(dirs, at) {
			return nil, nil, usagef("take another folder, one that is empty or not there",
				"%s is not empty, and no export of all users: it has %s", dir, printable.Argument(entry.Name()))
		}
	}
	for at, h := range exports {
		if h.Cluster == cluster && !slices.Contains(users, h.User) {
			m.e.say("left %s: there is no user %s any more", at, printable.Argument(h.User))
		}
	}
	return users, dirs, nil
}
