package modes

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"imgcluster/cluster/client"
)

type getOptions struct {
	image     string // user/name
	output    string
	encrypted bool
	force     bool
}

func newGet(e *env) *cobra.Command {
	o := getOptions{}
	cmd := &cobra.Command{
		Use:     "get USER/NAME",
		Short:   "Read an image back",
		Example: "  imgcluster get alice/photo.png\n  imgcluster get alice/photo.png -o - | display",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.image = args[0]
			return runGet(cmd.Context(), e, o)
		},
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "file to write, - for standard output (default the image's base name)")
	cmd.Flags().BoolVar(&o.encrypted, "encrypted", false, "get the stored ciphertext instead")
	cmd.Flags().BoolVar(&o.force, "force", false, "replace an existing file")
	return cmd
}

// splitImage reads USER/NAME.
func splitImage(s string) (user, name string, err error) {
	user, name, ok := strings.Cut(s, "/")
	if !ok || user == "" || name == "" {
		return "", "", usagef("name the user and the image, such as alice/photo.png", "%q is not USER/NAME", s)
	}
	return user, name, nil
}

func runGet(ctx context.Context, e *env, o getOptions) error {
	user, name, err := splitImage(o.image)
	if err != nil {
		return err
	}
	if o.output == "" {
		o.output = filepath.Base(name)
	}
	_, err = os.Lstat(o.output)
	if err == nil && !o.force && o.output != "-" {
		return usagef("name another with -o, or add --force", "%s exists", o.output)
	}
	_, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	obj, err := c.Get(ctx, user, name, client.GetOptions{Encrypted: o.encrypted})
	if err != nil {
		return err
	}
	defer obj.Body.Close()
	if o.output == "-" {
		_, err = io.Copy(e.out, obj.Body)
		return err
	}
	if err := writeFile(o.output, obj.Body); err != nil {
		return err
	}
	e.say("%s  %s", o.output, formatBytes(obj.Size))
	return nil
}

// writeFile writes all of r, or nothing, under path.
func writeFile(path string, r io.Reader) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = io.Copy(f, r); err != nil {
		return err
	}
	if err = f.Chmod(0o644); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("move the image in place: %w", err)
	}
	return nil
}
