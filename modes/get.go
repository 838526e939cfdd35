package modes

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
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
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.image = args[0]
			return runGet(cmd.Context(), e, o)
		},
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "file or folder to write to, - for standard output (default the image's base name)")
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
	if err := image.CheckUser(user); err != nil {
		return "", "", err
	}
	return user, name, image.CheckName(name)
}

// missing words the absence of an image, for which a HEAD gets no words from the node.
func missing(user, name string, err error) error {
	if image.KindOf(err) != image.KindNotFound {
		return err
	}
	return image.Errorf(image.KindNotFound, "user %s has no image %s", shellQuote(user), shellQuote(name)).
		WithHint("see what is there with: imgcluster ls " + shellQuote(user))
}

// destination checks where the image goes, and returns the file; "-" is standard output.
func (o getOptions) destination(name string) (string, error) {
	path := o.output
	if path == stdin {
		return path, nil
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() || path == "" {
		path = filepath.Join(path, filepath.Base(name))
	}
	info, err := os.Lstat(path)
	switch {
	case err == nil && info.IsDir():
		return "", usagef("name a file with -o", "%s is a folder", path)
	case err == nil && !o.force:
		return "", usagef("name another with -o, or add --force", "%s exists", path)
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
		return "", usagef("make it, or name another with -o", "there is no folder %s", filepath.Dir(path))
	}
	return path, nil
}

func runGet(ctx context.Context, e *env, o getOptions) error {
	user, name, err := splitImage(o.image)
	if err != nil {
		return err
	}
	path, err := o.destination(name)
	if err != nil {
		return err
	}
	_, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	obj, err := c.Get(ctx, user, name, client.GetOptions{Encrypted: o.encrypted})
	if err != nil {
		return missing(user, name, err)
	}
	defer obj.Body.Close()
	if path == stdin {
		_, err = io.Copy(e.out, obj.Body)
		return err
	}
	if err := writeFile(path, obj.Body); err != nil {
		return err
	}
	if e.json {
		return json.NewEncoder(e.out).Encode(struct {
			File string `json:"file"`
			client.Info
			Node image.NodeID `json:"node"` // that sent it
		}{path, obj.Info, obj.Node})
	}
	e.say("%s  %s from node %d", path, formatBytes(obj.Size), obj.Node)
	return nil
}

// writeFile writes all of r, or nothing, under path.
func writeFile(path string, r io.Reader) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("%s cannot be written: %w", path, noPath(err))
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
