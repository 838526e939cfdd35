package modes

import (
	"bytes"
	"context"
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

type putOptions struct {
	files    []string
	user     string
	name     string
	ifAbsent bool
}

func newPut(e *env) *cobra.Command {
	o := putOptions{}
	cmd := &cobra.Command{
		Use:   "put FILE... | put --name NAME -",
		Short: "Store images",
		Long: `Store image files of any format under their base names. "-" reads one image from
standard input and needs --name.`,
		Example: "  imgcluster put --user alice holiday/*.jpg\n  camera | imgcluster put --user alice --name gate/now.jpg -",
		Args:    usageArgs(cobra.MinimumNArgs(1)),
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

// names checks the whole command before anything is sent.
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
		} else if file == "-" {
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
	return names, image.CheckUser(o.user)
}

func runPut(ctx context.Context, e *env, o putOptions) error {
	names, err := o.names()
	if err != nil {
		return err
	}
	cfg, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	var failed error
	for i, file := range o.files {
		receipt, err := e.putFile(ctx, cfg, c, o, file, names[i])
		if err != nil {
			if len(o.files) > 1 {
				fmt.Fprintf(e.err, "imgcluster: %s: %v\n", file, err)
			}
			failed = errors.Join(failed, fmt.Errorf("%s: %w", file, err))
			if exitStatus(err) == exitNobody || ctx.Err() != nil {
				break
			}
			continue
		}
		e.printReceipt(receipt)
	}
	return failed
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
	if file == "-" {
		data, err := io.ReadAll(io.LimitReader(e.in, int64(cfg.Limits.ImageBytes)+1))
		if err != nil {
			return image.Receipt{}, err
		}
		up.Size = int64(len(data))
		up.Body = func() io.Reader { return bytes.NewReader(data) }
	} else {
		f, err := os.Open(file)
		if err != nil {
			return image.Receipt{}, err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return image.Receipt{}, err
		}
		if !info.Mode().IsRegular() {
			return image.Receipt{}, usagef("name the files in it", "%s is not a file", file)
		}
		up.Size = info.Size()
		up.Body = func() io.Reader { return io.NewSectionReader(f, 0, up.Size) }
	}
	if up.Size > int64(cfg.Limits.ImageBytes) {
		return image.Receipt{}, image.Errorf(image.KindTooLarge, "%s is larger than the limit of %s", file, formatBytes(int64(cfg.Limits.ImageBytes))).
			WithHint("raise limits.image_bytes on every node and here")
	}
	r, err := c.Put(ctx, up)
	if r.Done != nil {
		<-r.Done
	}
	return r.Receipt, err
}
