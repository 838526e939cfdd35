package modes

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/config"
)

// defaultUser is whose images put stores when nobody is named.
const defaultUser = "default"

// stdin stands for standard input, or standard output, where a file is named.
const stdin = "-"

type putOptions struct {
	files    []string
	user     string
	name     string
	ifAbsent bool
}

func newPut(e *env) *cobra.Command {
	o := putOptions{}
	cmd := &cobra.Command{
		Use:   "put FILE...",
		Short: "Store images",
		Long: `Store image files of any format under their base names. "-" reads one image from
standard input and needs --name. All files are looked at before the first is sent.`,
		Example: "  imgcluster put --user alice holiday/*.jpg\n  camera | imgcluster put --user alice --name gate/now.jpg -",
		Args:    args(1, anyNumber),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.files = args
			return runPut(cmd.Context(), e, o)
		},
	}
	cmd.Flags().StringVar(&o.user, "user", defaultUser, "whose images")
	cmd.Flags().StringVar(&o.name, "name", "", "name to store a single image under (default the file's base name)")
	cmd.Flags().BoolVar(&o.ifAbsent, "no-replace", false, "fail when an image of that name exists")
	return cmd
}

// names checks the command and returns the images' names, in the order of the files.
func (o putOptions) names() ([]string, error) {
	if o.name != "" && len(o.files) > 1 {
		return nil, usagef("give one file with --name", "--name with %d files", len(o.files))
	}
	names := make([]string, len(o.files))
	seen := map[string]string{}
	for i, file := range o.files {
		names[i] = filepath.Base(file)
		if o.name != "" {
			names[i] = o.name
		} else if file == stdin {
			return nil, usagef("add --name, such as --name photo.png", "an image from standard input has no name")
		}
		if first, ok := seen[names[i]]; ok {
			return nil, usagef("put them one by one, with --name", "%s and %s would both be stored as %q", first, file, names[i])
		}
		seen[names[i]] = file
		if err := image.CheckName(names[i]); err != nil {
			return nil, err
		}
	}
	return names, checkUser(o.user)
}

// checkUser is image.CheckUser with a next step.
func checkUser(user string) error {
	if err := image.CheckUser(user); err != nil {
		return &hintedError{err, "give one name with --user, such as alice; folders go into the images' names"}
	}
	return nil
}

func runPut(ctx context.Context, e *env, o putOptions) error {
	cfg, err := e.load()
	if err != nil {
		return err
	}
	if err := checkFiles(o.files, cfg.Limits.ImageBytes); err != nil {
		return err
	}
	names, err := o.names()
	if err != nil {
		return err
	}
	c, err := e.userClient(cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	return e.forEach(ctx, "stored", o.files, func(i int) error {
		receipt, err := e.putFile(ctx, cfg, c, o, o.files[i], names[i])
		if err == nil {
			e.printReceipt(receipt)
		}
		return err
	})
}

// forEach does something with each thing in turn, and goes on after a failure unless the cluster is
// out of reach or the command was stopped. One thing's error is returned as it is.
func (e *env) forEach(ctx context.Context, done string, things []string, do func(int) error) error {
	var failed []error
	for i, thing := range things {
		err := do(i)
		if err == nil {
			continue
		}
		if thing == stdin {
			thing = "standard input"
		}
		err = fmt.Errorf("%s: %w", thing, err)
		if failed = append(failed, err); len(things) == 1 {
			return err
		}
		e.printError(e.err, err)
		if exitStatus(err) == exitNobody || ctx.Err() != nil {
			left := len(things) - i - 1 + len(failed)
			return &partError{fmt.Sprintf("%d of %d images were not %s", left, len(things), done), failed}
		}
	}
	if failed == nil {
		return nil
	}
	return &partError{fmt.Sprintf("%d of %d images were not %s", len(failed), len(things), done), failed}
}

// checkFiles refuses files that cannot be stored, before any is sent.
func checkFiles(files []string, limit config.Bytes) error {
	var problems []error
	for _, file := range files {
		if file == stdin {
			continue
		}
		info, err := os.Stat(file)
		switch {
		case err != nil:
			problems = append(problems, fmt.Errorf("%s: %w", file, noPath(err)))
		case info.IsDir():
			problems = append(problems, fmt.Errorf("%s is a folder", file))
		case !info.Mode().IsRegular():
			problems = append(problems, fmt.Errorf("%s is not a file", file))
		default:
			if err := checkSize(file, info.Size(), limit); err != nil {
				problems = append(problems, err)
			}
		}
	}
	if problems == nil {
		return nil
	}
	hint := "nothing was sent; name files that can be read, from 1 byte to " + limit.String()
	return &usageError{err: errors.Join(problems...), hint: hint}
}

// checkSize refuses what no node takes.
func checkSize(file string, size int64, limit config.Bytes) error {
	switch {
	case size == 0:
		return usagef("give an image that has something in it", "%s is empty", file)
	case size > int64(limit):
		return usagef("raise limits.image_bytes on every node and here", "%s is larger than limits.image_bytes, %s", file, limit)
	}
	return nil
}

func (e *env) printReceipt(r image.Receipt) {
	if e.json {
		json.NewEncoder(e.out).Encode(r)
		return
	}
	fmt.Fprintf(e.out, "%s/%s  %s  owner node %d, copies on %s\n", r.User, r.Name, formatBytes(r.Bytes), r.Owner, formatNodes(r.Replicas))
}

// putFile sends one file, or standard input.
func (e *env) putFile(ctx context.Context, cfg *config.Config, c *client.Client, o putOptions, file, name string) (image.Receipt, error) {
	up := client.Upload{User: o.user, Name: name, IfNoneMatch: o.ifAbsent}
	body, size, err := e.open(file, cfg.Limits.ImageBytes)
	if err != nil {
		return image.Receipt{}, err
	}
	if closer, ok := body.(io.Closer); ok {
		defer closer.Close()
	}
	up.Size, up.Body = size, func() io.Reader { return io.NewSectionReader(body, 0, size) }
	if up.Digest, err = digest(up.Body()); err != nil {
		return image.Receipt{}, fmt.Errorf("%s: %w", file, err)
	}
	r, err := c.Put(ctx, up)
	if r.Done != nil {
		<-r.Done
	}
	if image.KindOf(err) == image.KindExists {
		return r.Receipt, &hintedError{err, "leave out --no-replace to replace it"}
	}
	return r.Receipt, err
}

// open returns the bytes of a file, or of standard input, which it reads to its end.
func (e *env) open(file string, limit config.Bytes) (io.ReaderAt, int64, error) {
	if file == stdin {
		data, err := io.ReadAll(io.LimitReader(e.in, int64(limit)+1))
		if err != nil {
			return nil, 0, err
		}
		return bytes.NewReader(data), int64(len(data)), checkSize("it", int64(len(data)), limit)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, 0, noPath(err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// digest returns the SHA-256 that the nodes hold the upload to and keep in its record.
func digest(r io.Reader) (*image.Digest, error) {
	sum := sha256.New()
	if _, err := io.Copy(sum, r); err != nil {
		return nil, err
	}
	return (*image.Digest)(sum.Sum(nil)), nil
}
