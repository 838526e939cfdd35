package modes

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/oserr"
	"imgcluster/cluster/printable"
	"imgcluster/config"
	"imgcluster/modes/stress/load"
	"imgcluster/modes/term"
)

// defaultUser owns the images that put stores when no user is named.
const defaultUser = "default"

// stdin is the file name that stands for standard input or standard output.
const stdin = "-"

type putOptions struct {
	files    []string
	user     string
	name     string
	delivery string
	ifAbsent bool
}

func newPut(e *env) *cobra.Command {
	o := putOptions{}
	cmd := &cobra.Command{
		Use:   "put FILE...",
		Short: "Store images",
		Long: `Store image files of any format under their base names. "-" reads one image from
standard input and needs --name, as a pipe does. All files are checked before
the first is sent; those that cannot be read or stored are named and left out.`,
		Example: "  imgcluster put --user alice holiday/*.jpg\n" +
			"  camera | imgcluster put --user alice --name gate/now.jpg -",
		Args: args(1, anyNumber),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.files = args
			return runPut(cmd.Context(), e, o)
		},
	}
	cmd.Flags().StringVar(&o.user, "user", defaultUser, "whose images")
	cmd.Flags().StringVar(&o.name, "name", "",
		"name to store a single image under (default the file's base name)")
	deliveryFlag(cmd.Flags(), &o.delivery, client.Auto)
	cmd.Flags().BoolVar(&o.ifAbsent, "no-replace", false, "fail when an image of that name exists")
	return cmd
}

// deliveryFlag adds the choice of a delivery to a command.
func deliveryFlag(f *pflag.FlagSet, delivery *string, byDefault client.Delivery) {
	f.StringVar(delivery, "delivery", string(byDefault),
		"broadcast to all nodes, announce and send to those that store the image, relay through one, "+
			"or auto: announce where that is faster by the first images, else broadcast")
}

// putFile is a file to send, or standard input, and the name of its image.
type putFile struct{ path, name string }

// choose checks the command and returns the files that can be sent, and why the others cannot. It is an
// error when no file can be sent.
func (o putOptions) choose(limit config.Bytes) (send []putFile, leftOut []error, err error) {
	if o.name != "" && len(o.files) > 1 {
		return nil, nil, usagef("give one file with --name", "--name with %d files", len(o.files))
	}
	if err := errors.Join(checkUser(o.user), client.Delivery(o.delivery).Check()); err != nil {
		return nil, nil, err
	}
	seen := map[string]string{}
	for _, path := range o.files {
		f := putFile{path, cmp.Or(o.name, filepath.Base(path))}
		if path == stdin && o.name == "" {
			return nil, nil, usagef("add --name, such as --name photo.png", "an image from standard input has no name")
		}
		if err := o.check(f, limit); err != nil {
			leftOut = append(leftOut, err)
			continue
		}
		if first, ok := seen[f.name]; ok {
			return nil, nil, usagef("put them one by one, with --name",
				"%s and %s would both be stored as %q", first, path, f.name)
		}
		seen[f.name] = path
		send = append(send, f)
	}
	if name := (*image.Error)(nil); len(o.files) == 1 && leftOut != nil && errors.As(leftOut[0], &name) {
		return nil, nil, name
	}
	if send == nil {
		hint := "nothing was sent; name files that can be read, from 1 byte to " + limit.String()
		return nil, nil, &usageError{err: errors.Join(leftOut...), hint: hint}
	}
	return send, leftOut, nil
}

// check returns why a file cannot be sent.
func (o putOptions) check(f putFile, limit config.Bytes) error {
	if err := image.CheckName(f.name); err != nil {
		return err
	}
	if f.path == stdin {
		return nil
	}
	size, err := load.Readable(f.path, math.MaxInt64)
	switch {
	case err == nil:
		return checkSize(f.path, size, limit)
	case errors.Is(err, load.ErrNoFile) && o.name != "":
		return nil
	case errors.Is(err, load.ErrNoFile):
		return fmt.Errorf("%s %w: give it a name of its own with --name", f.path, err)
	case errors.As(err, new(*fs.PathError)):
		return fmt.Errorf("%s: %w", f.path, oserr.NoPath(err))
	}
	return fmt.Errorf("%s %w", f.path, err)
}

// checkUser is image.CheckUser with a hint for --user.
func checkUser(user string) error {
	if err := image.CheckUser(user); err != nil {
		return &hintedError{err, "give one name with --user, such as alice; folders belong to the images' names"}
	}
	return nil
}

func runPut(ctx context.Context, e *env, o putOptions) error {
	cfg, err := e.load()
	if err != nil {
		return err
	}
	files, leftOut, err := o.choose(cfg.Limits.ImageBytes)
	if err != nil {
		return err
	}
	c, err := e.userClient(cfg, client.Delivery(o.delivery))
	if err != nil {
		return err
	}
	defer c.Close()
	for _, why := range leftOut {
		e.printError(e.err, &hintedError{fmt.Errorf("not sent: %w", why), ""})
	}
	paths := make([]string, len(files))
	for i, f := range files {
		paths[i] = f.path
	}
	return e.forEach(ctx, "stored", paths, len(leftOut), func(i int) error {
		receipt, err := e.putFile(ctx, cfg, c, o, files[i])
		if err == nil {
			e.printReceipt(receipt)
		}
		return err
	})
}

// forEach calls do for each of the named images in turn, also after a failure, unless the cluster is out
// of reach or the command was stopped. leftOut more images count as missed. The error of a single image
// is returned as it is.
func (e *env) forEach(
	ctx context.Context, done string, names []string, leftOut int, do func(int) error,
) error {
	var failed []error
	missed := leftOut
	all := len(names) + leftOut
	for i, name := range names {
		err := do(i)
		if err == nil {
			continue
		}
		if name == stdin {
			name = "standard input"
		}
		err = fmt.Errorf("%s: %w", name, err)
		if all == 1 {
			return err
		}
		failed = append(failed, err)
		missed++
		e.printError(e.err, err)
		if exitStatus(err) == exitNobody || ctx.Err() != nil {
			missed += len(names) - i - 1
			break
		}
	}
	if missed == 0 {
		return nil
	}
	return &partError{fmt.Sprintf("%d of %d images were not %s", missed, all, done), failed}
}

// checkSize refuses a size that no node takes.
func checkSize(file string, size int64, limit config.Bytes) error {
	switch {
	case size == 0:
		return usagef("give an image that has something in it", "%s is empty", file)
	case size > int64(limit):
		return usagef("raise limits.image_bytes on every node and here",
			"%s is larger than limits.image_bytes, %s", file, limit)
	}
	return nil
}

func (e *env) printReceipt(r image.Receipt) {
	if e.json {
		e.printJSON(r)
		return
	}
	fmt.Fprintf(printable.Writer(e.out), "%s/%s  %s  owner node %d, copies on %s\n",
		r.User, r.Name, term.Bytes(r.Bytes), r.Owner, term.List(r.Replicas))
}

// putFile sends one file, or standard input.
func (e *env) putFile(
	ctx context.Context, cfg *config.Config, c *client.Client, o putOptions, f putFile,
) (image.Receipt, error) {
	body, size, err := e.open(ctx, f.path, cfg.Limits.ImageBytes)
	if err != nil {
		return image.Receipt{}, err
	}
	if closer, ok := body.(io.Closer); ok {
		defer closer.Close()
	}
	up := client.Upload{
		User:        o.user,
		Name:        f.name,
		Size:        size,
		Body:        func() io.Reader { return io.NewSectionReader(body, 0, size) },
		IfNoneMatch: o.ifAbsent,
	}
	if up.Digest, err = digest(up.Body()); err != nil {
		return image.Receipt{}, oserr.NoPath(err)
	}
	r, err := c.Put(ctx, up)
	if r.Done != nil {
		<-r.Done
	}
	if c := r.Chosen(); c != nil {
		e.say("%v", c)
	}
	if image.KindOf(err) == image.KindExists {
		return r.Receipt, &hintedError{err, "leave out --no-replace to replace it"}
	}
	return r.Receipt, err
}

// open returns the bytes of a file and their number. Standard input, a pipe or a device is read to its end.
func (e *env) open(ctx context.Context, path string, limit config.Bytes) (io.ReaderAt, int64, error) {
	in := io.Reader(e.in)
	if path != stdin {
		f, err := await(ctx, func() (*os.File, error) { return os.Open(path) }) // waits for a pipe's writer
		if err != nil {
			return nil, 0, oserr.NoPath(err)
		}
		info, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, 0, err
		}
		if info.Mode().IsRegular() {
			return f, info.Size(), nil
		}
		defer f.Close()
		in = &input{ctx, f}
	}
	data, err := io.ReadAll(io.LimitReader(in, int64(limit)+1))
	if err != nil {
		return nil, 0, oserr.NoPath(err)
	}
	return bytes.NewReader(data), int64(len(data)), checkSize("it", int64(len(data)), limit)
}

// digest returns the SHA-256 that the nodes verify and keep in the image's record.
func digest(r io.Reader) (*image.Digest, error) {
	sum := sha256.New()
	if _, err := io.Copy(sum, r); err != nil {
		return nil, err
	}
	return (*image.Digest)(sum.Sum(nil)), nil
}
