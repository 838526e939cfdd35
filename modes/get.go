package modes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"imgcluster/cluster/client"
	"imgcluster/cluster/durable"
	"imgcluster/cluster/image"
	"imgcluster/cluster/oserr"
	"imgcluster/cluster/printable"
	"imgcluster/modes/exchange"
	"imgcluster/modes/term"
)

type getOptions struct {
	outputOptions
	image     string // user/name
	encrypted bool
}

// outputOptions are the options of a command that writes one file.
type outputOptions struct {
	output string
	force  bool
}

// addFlags adds the options; usage is that of -o.
func (o *outputOptions) addFlags(flags *pflag.FlagSet, usage string) {
	flags.StringVarP(&o.output, "output", "o", "", usage)
	flags.BoolVar(&o.force, "force", false, "replace an existing file")
}

func newGet(e *env) *cobra.Command {
	o := getOptions{}
	cmd := &cobra.Command{
		Use:               "get USER/NAME",
		Short:             "Read an image back",
		Example:           "  imgcluster get alice/photo.png\n  imgcluster get alice/photo.png -o - | display",
		Args:              args(1, 1),
		ValidArgsFunction: first(e.completeImage),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.image = args[0]
			return runGet(cmd.Context(), e, o)
		},
	}
	o.addFlags(cmd.Flags(),
		"file or folder to write to, - for standard output (default the image's base name)")
	cmd.Flags().BoolVar(&o.encrypted, "encrypted", false, "get the stored ciphertext instead")
	return cmd
}

// splitImage parses USER/NAME.
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

// missing returns the error of an image that is not there in place of err, since the answer to a HEAD has
// no text.
func missing(user, name string, err error) error {
	if image.KindOf(err) != image.KindNotFound {
		return err
	}
	user = printable.Argument(user)
	return image.Errorf(image.KindNotFound, "user %s has no image %s", user, printable.Argument(name)).
		WithHint("see what is there with: imgcluster ls " + user)
}

// destination checks and returns the file to write; "-" is standard output. A device or a pipe is direct:
// it is opened and written to, not replaced.
func (o outputOptions) destination(name string) (path string, direct bool, err error) {
	path = o.output
	if path == stdin || path == "/dev/stdout" {
		return stdin, true, nil
	}
	if isFolder(path) || path == "" {
		base := name[strings.LastIndexByte(name, '/')+1:]
		if !exchange.IsPart(base) {
			return "", false, usagef("name a file with -o", "%q cannot be the name of a file here", base)
		}
		path = filepath.Join(path, base)
	}
	if info, err := os.Stat(path); err == nil && !info.IsDir() && !info.Mode().IsRegular() {
		return path, true, nil
	}
	switch info, err := os.Lstat(path); {
	case err == nil && info.IsDir():
		return "", false, usagef("name a file with -o", "%s is a folder", path)
	case err == nil && !o.force:
		return "", false, usagef("name another with -o, or add --force", "%s exists", path)
	case err != nil && !errors.Is(err, fs.ErrNotExist) && isFolder(filepath.Dir(path)):
		return "", false, usagef("name another file with -o", "%s: %w", path, oserr.NoPath(err))
	}
	if !isFolder(filepath.Dir(path)) {
		return "", false, usagef("make it, or name another with -o", "there is no folder %s", filepath.Dir(path))
	}
	return path, false, nil
}

func runGet(ctx context.Context, e *env, o getOptions) error {
	user, name, err := splitImage(o.image)
	if err != nil {
		return err
	}
	path, direct, err := o.destination(name)
	if err != nil {
		return err
	}
	_, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	obj, err := c.Get(ctx, user, name, o.encrypted)
	if err != nil {
		return missing(user, name, err)
	}
	defer obj.Body.Close()
	write := func(w io.Writer) error {
		_, err := io.Copy(w, obj.Body)
		return err
	}
	return e.deliver(ctx, path, direct, write, func() (any, string) {
		line := fmt.Sprintf("%s  %s from node %d", path, term.Bytes(obj.Size), obj.Node)
		return struct {
			File string `json:"file"`
			client.Info
			Node image.NodeID `json:"node"` // that sent it
		}{path, obj.Info, obj.Node}, line
	})
}

// otherOutput is the hint when the image cannot be written.
const otherOutput = "name another file with -o, - for standard output"

// writeFile writes under path all that write writes, or nothing.
func writeFile(path string, write func(io.Writer) error) error {
	f, err := durable.Create(path)
	if err != nil {
		return usagef(otherOutput, "%s cannot be written: %w", path, oserr.NoPath(err))
	}
	if err := write(f); err != nil {
		f.Discard()
		return cannotWrite(path, err)
	}
	return cannotWrite(path, f.Commit())
}

// writeDirect writes to a device or a pipe. It waits for the pipe's reader.
func writeDirect(ctx context.Context, path string, write func(io.Writer) error) error {
	f, err := await(ctx, func() (*os.File, error) { return os.OpenFile(path, os.O_WRONLY, 0) })
	if err != nil {
		return cannotWrite(path, err)
	}
	return cannotWrite(path, errors.Join(write(f), f.Close()))
}

// deliver writes to where destination says, and then tells what was written: told, which is called after
// that, returns it as the document of --json and as a line. With the file on standard output nothing is.
func (e *env) deliver(
	ctx context.Context, path string, direct bool, write func(io.Writer) error,
	told func() (document any, line string),
) (err error) {
	switch {
	case path == stdin:
		return write(e.out)
	case direct:
		err = writeDirect(ctx, path, write)
	default:
		err = writeFile(path, write)
	}
	if err != nil {
		return err
	}
	document, line := told()
	if e.json {
		return e.printJSON(document)
	}
	e.say("%s", line)
	return nil
}

// cannotWrite adds the path to an error of a write. An error of a read is returned as it is.
func cannotWrite(path string, err error) error {
	if bare := oserr.NoPath(err); bare != err {
		return &hintedError{fmt.Errorf("%s cannot be written: %w", path, bare), otherOutput}
	}
	return err
}
