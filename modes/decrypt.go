package modes

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"imgcluster/cluster/image"
	"imgcluster/cluster/oserr"
	"imgcluster/crypto"
	"imgcluster/modes/term"
)

type decryptOptions struct {
	outputOptions
	file, keys, identity string
}

func newDecrypt(e *env) *cobra.Command {
	o := decryptOptions{}
	cmd := &cobra.Command{
		Use:   "decrypt FILE --keys EXPORT --identity FILE",
		Short: "Decrypt one stored file with exported keys",
		Long: `Decrypt one stored file (images/…/*.img of a node's data directory) with the
users' keys that imgcluster keys export has written, and an age identity of one
of its recipients. No cluster, configuration or master key is needed. Every byte
is authenticated; of a damaged file, nothing is left in the output file.`,
		Example: "  imgcluster decrypt stored.img --keys keys.age --identity recovery.txt",
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.file = args[0]
			return runDecrypt(cmd.Context(), e, o)
		},
	}
	cmd.Flags().StringVar(&o.keys, "keys", "", "`file` that imgcluster keys export has written (required)")
	cmd.Flags().StringVar(&o.identity, "identity", "",
		"age identity `file` that the keys were exported to, - for standard input (required)")
	o.addFlags(cmd.Flags(),
		"file or folder to write to, - for standard output (default FILE's name without .img)")
	return cmd
}

func runDecrypt(ctx context.Context, e *env, o decryptOptions) error {
	if o.keys == "" || o.identity == "" {
		return usagef("give --keys EXPORT and --identity FILE", "which keys open %s?", o.file)
	}
	path, direct, err := o.destination(strings.TrimSuffix(filepath.Base(o.file), ".img"))
	if err != nil {
		return err
	}
	src, err := openRead(o.file)
	if err != nil {
		return err
	}
	defer src.Close()
	read := []used{
		usedFile(o.file, o.file, ""), usedFile("--keys "+o.keys, o.keys, ""),
		usedFile("--identity "+o.identity, o.identity, ""),
	}
	if path != stdin {
		if err := e.checkDistinct([]used{usedFile("-o "+path, path, otherOutput)}, read); err != nil {
			return err
		}
	}
	var h *crypto.Header
	write := func(w io.Writer) (err error) {
		h, err = crypto.Verify(w, src, func(h *crypto.Header) (crypto.Key, error) { return o.key(e, h) })
		return err
	}
	return e.deliver(ctx, path, direct, write, func() (any, string) {
		line := fmt.Sprintf("%s  %s, image %s of %s", path, term.Bytes(h.Length), image.ID(h.Image), h.Tenant)
		return struct {
			File  string   `json:"file"`
			User  string   `json:"user"`
			Image image.ID `json:"image"`
			Bytes int64    `json:"bytes"`
		}{path, h.Tenant, h.Image, h.Length}, line
	})
}

// key returns the key that a file needs from the export.
func (o decryptOptions) key(e *env, h *crypto.Header) (crypto.Key, error) {
	export, err := openRead(o.keys)
	if err != nil {
		return crypto.Key{}, err
	}
	defer export.Close()
	if o.identity == stdin {
		return crypto.ExportedKey(export, e.in, h)
	}
	identity, err := openRead(o.identity)
	if err != nil {
		return crypto.Key{}, err
	}
	defer identity.Close()
	return crypto.ExportedKey(export, identity, h)
}

// openRead opens a file that the user has named.
func openRead(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &hintedError{fmt.Errorf("%s cannot be read: %w", path, oserr.NoPath(err)), "check the path"}
	}
	return f, nil
}
