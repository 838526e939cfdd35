package modes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imgcluster/cluster/access"
	"imgcluster/cluster/client"
	"imgcluster/cluster/oserr"
	"imgcluster/cluster/printable"
	"imgcluster/cluster/wait"
	"imgcluster/cluster/wire"
	"imgcluster/config"
	"imgcluster/crypto"
	"imgcluster/modes/term"
)

func newKeys(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Rotate or export the keys that images are encrypted with",
		Args:  onlyCommands,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeysStatus(e), newKeysRotate(e), newKeysRewrap(e), newKeysExport(e))
	return cmd
}

func newKeysStatus(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Show the master key's ID, and how far a change of it is",
		Example: "  imgcluster keys status",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, c, err := e.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			s, err := c.MasterKey(cmd.Context())
			if err != nil {
				return err
			}
			return writeMasterKey(e, s)
		},
	}
}

// writeMasterKey prints the state of the master key.
func writeMasterKey(e *env, s wire.MasterKey) error {
	if e.json {
		return e.printJSON(s)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "master key %s\n", s.Key)
	if s.Next != "" {
		fmt.Fprintf(&out, "changing to %s; %s left\n", s.Next, term.Plural(s.Left, "key"))
	}
	for _, n := range s.Nodes {
		if !n.Up {
			fmt.Fprintf(&out, "node %d  does not answer\n", n.ID)
			continue
		}
		uses := "uses " + n.Uses
		if n.Uses == "" {
			uses = "is changing its key"
		}
		fmt.Fprintf(&out, "node %d  %s, has %s\n", n.ID, uses, strings.Join(n.Has, ", "))
	}
	for _, w := range s.Waits {
		fmt.Fprintf(&out, "%s\n", term.Indent("", "waits: "+w))
	}
	_, err := io.WriteString(printable.Writer(e.out), out.String())
	return err
}

type keysRotateOptions struct {
	prepare, finish bool
	user            string
}

func newKeysRotate(e *env) *cobra.Command {
	var o keysRotateOptions
	cmd := &cobra.Command{
		Use:   "rotate [--prepare | --finish | --user U]",
		Short: "Change the master key, or give a user a newer key",
		Long: `Change the master key in three steps, while the cluster serves:

  keys rotate --prepare   makes the next key and its ca.crt on this machine, and
                          says what to copy where
  keys rotate             once all nodes have it: everything is sealed by it;
                          nodes and clients of both keys are served
  keys rotate --finish    the old key is good for nothing any more

Each is refused until it can be done, with what is missing; keys status shows it
too. With --user, a user's new images are encrypted with a newer key; keys
rewrap encrypts those that are stored with it.`,
		Example: "  imgcluster keys rotate --user alice\n  imgcluster keys rotate --prepare",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runKeysRotate(cmd.Context(), e, o)
		},
	}
	cmd.Flags().BoolVar(&o.prepare, "prepare", false, "make the next master key")
	cmd.Flags().BoolVar(&o.finish, "finish", false, "end the change: the old master key is retired")
	cmd.Flags().StringVar(&o.user, "user", "", "give this user a newer key")
	return cmd
}

func runKeysRotate(ctx context.Context, e *env, o keysRotateOptions) error {
	if o.prepare && o.finish || o.user != "" && (o.prepare || o.finish) {
		return usagef("give one of them; see imgcluster keys rotate --help",
			"--prepare, --finish and --user are steps of their own")
	}
	if o.prepare {
		return runKeysPrepare(ctx, e)
	}
	cfg, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	switch {
	case o.user != "":
		return runUserKeyRotate(ctx, e, c, o.user)
	case o.finish:
		return runKeysFinish(ctx, e, cfg, c)
	}
	if _, err = c.ChangeMasterKey(ctx, wire.MasterKeyRotate); err != nil {
		return err
	}
	s, err := awaitResealed(ctx, e, c)
	if err != nil {
		return err
	}
	if err := writeMasterKey(e, s); err != nil {
		return err
	}
	e.say("Clients with the old ca.crt and with the new one are served. Give them the new one, then: "+
		"imgcluster keys rotate --finish%s", e.sameConfig())
	return nil
}

func runUserKeyRotate(ctx context.Context, e *env, c *client.Client, user string) error {
	k, err := c.RotateUserKey(ctx, user)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(map[string]any{"user": k.User, "key": k.Key})
	}
	e.say("new images of %s are encrypted with key %d; those there are keep theirs until: "+
		"imgcluster keys rewrap --user %s%s", k.User, k.Key, k.User, e.sameConfig())
	return nil
}

func newKeysRewrap(e *env) *cobra.Command {
	var user string
	cmd := &cobra.Command{
		Use:   "rewrap --user U",
		Short: "Encrypt a user's stored images again under the user's newest key",
		Long: `Have the nodes encrypt a user's stored images again under the user's newest
key, one copy at a time and in the background, and show how far they are until
none is under an older key. It goes on when this command is interrupted, and
when nodes stop and start; the command given again shows how far it is.`,
		Example: "  imgcluster keys rotate --user alice\n  imgcluster keys rewrap --user alice",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runKeysRewrap(cmd.Context(), e, user)
		},
	}
	cmd.Flags().StringVar(&user, "user", "", "whose images (required)")
	return cmd
}

func runKeysRewrap(ctx context.Context, e *env, user string) error {
	if user == "" {
		return usagef("give --user U", "whose images?")
	}
	_, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := c.Rewrap(ctx, user)
	if err != nil {
		return err
	}
	progress := e.progress()
	defer progress.end()
	for s.Left > 0 {
		var nodes []string
		for _, n := range s.Nodes {
			nodes = append(nodes, fmt.Sprintf("node %d %d", n.ID, n.Left))
		}
		progress.show(false, "%s left: %s", term.Plural(s.Left, "copy"), strings.Join(nodes, ", "))
		if !wait.For(ctx, keysEvery) {
			return context.Cause(ctx)
		}
		if s, err = c.RewrapState(ctx, user); err != nil {
			return err
		}
	}
	progress.end()
	if e.json {
		return e.printJSON(s)
	}
	e.say("all images of %s are encrypted with key %d", s.User, s.Key)
	return nil
}

// keysEvery is the time between two looks at how far a change of keys is.
const keysEvery = 500 * time.Millisecond

// awaitResealed waits until a change of the master key can be finished.
func awaitResealed(ctx context.Context, e *env, c *client.Client) (s wire.MasterKey, err error) {
	for said := ""; ; {
		if s, err = c.MasterKey(ctx); err != nil || len(s.Waits) == 0 {
			return s, err
		}
		if text := strings.Join(s.Waits, "; "); text != said {
			e.say("waiting: %s", text)
			said = text
		}
		if !wait.For(ctx, keysEvery) {
			return s, context.Cause(ctx)
		}
	}
}

// runKeysPrepare makes the next master key, and the certificate of its authority for clients.
func runKeysPrepare(ctx context.Context, e *env) error {
	cfg, err := e.load()
	if err != nil {
		return err
	}
	source := keySource(cfg)
	held, err := source.Load(ctx)
	if err != nil {
		return err
	}
	next := held.Next
	if next == nil {
		if next, err = crypto.CreateMasterKey(source.NextFile()); err != nil {
			return err
		}
	}
	ca := ""
	if own := cfg.OwnCAFile(); own != "" && cfg.Secured() {
		ca = own + crypto.NextSuffix
		authority, err := access.NewAuthority(next, cfg.Cluster.Name)
		if err != nil {
			return err
		}
		if err := writePublic(ca, authority.CertificatePEM()); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if e.json {
		return e.printJSON(map[string]string{"file": source.NextFile(), "key_id": next.ID(), "ca": ca})
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s  the next master key, %s: keep a copy in a safe place\n", source.NextFile(), next.ID())
	if ca != "" {
		fmt.Fprintf(&out, "%s  public, the next %s\n", ca, cfg.OwnCAFile())
	}
	fmt.Fprintf(&out, "\nCopy   %s to the same place on every node, readable by its user alone\n",
		source.NextFile())
	if source.Command != "" || os.Getenv(crypto.MasterKeyEnv) != "" {
		fmt.Fprintf(&out, "       (or give its line after the other one, and restart the nodes)\n")
	}
	fmt.Fprintf(&out, "Then   imgcluster keys rotate%s\n", e.sameConfig())
	_, err = io.WriteString(printable.Writer(e.out), out.String())
	return err
}

// runKeysFinish ends a change of the master key, and puts the new ca.crt of this host into its place.
func runKeysFinish(ctx context.Context, e *env, cfg *config.Config, c *client.Client) error {
	s, err := c.ChangeMasterKey(ctx, wire.MasterKeyFinish)
	if err != nil {
		return err
	}
	if own := cfg.OwnCAFile(); own != "" {
		err := os.Rename(own+crypto.NextSuffix, own)
		switch {
		case err == nil:
			e.say("%s is the new one: every machine that uses the cluster needs it", own)
		case !errors.Is(err, fs.ErrNotExist):
			e.warn(fmt.Sprintf("%s stays as it was: %v", own, oserr.NoPath(err)),
				"move "+own+crypto.NextSuffix+" there")
		}
	}
	return writeMasterKey(e, s)
}

type keysExportOptions struct {
	outputOptions
	to []string
}

func newKeysExport(e *env) *cobra.Command {
	var o keysExportOptions
	cmd := &cobra.Command{
		Use:   "export --to RECIPIENT... -o FILE",
		Short: "Export all users' keys, encrypted with age",
		Long: `Export all users' keys, encrypted to age recipients (age1..., as age-keygen
prints them). With the export and an identity of a recipient, imgcluster decrypt
opens any stored file, without the cluster: keep both apart from the disks, and
export again after users were added or keys rotated. The master key must be on
this machine: the keys are unwrapped here, and no node sees them.`,
		Example: "  imgcluster keys export --to age1... -o keys.age",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runKeysExport(cmd.Context(), e, o)
		},
	}
	cmd.Flags().StringArrayVar(&o.to, "to", nil, "age `recipient`; repeat for more (required)")
	o.addFlags(cmd.Flags(), "`file` to write to, - for standard output (required)")
	return cmd
}

func runKeysExport(ctx context.Context, e *env, o keysExportOptions) error {
	if len(o.to) == 0 || o.output == "" {
		return usagef("give --to RECIPIENT and -o FILE", "to whom, and where?")
	}
	path, direct, err := o.destination("keys.age")
	if err != nil {
		return err
	}
	cfg, err := e.load()
	if err != nil {
		return err
	}
	held, err := e.masterKeys(cfg)
	if err != nil {
		return err
	}
	c, err := e.userClient(cfg, client.Broadcast)
	if err != nil {
		return err
	}
	defer c.Close()
	count := 0
	write := func(w io.Writer) (err error) {
		count, err = exportKeys(ctx, c, cfg.Cluster.Name, held, w, o.to)
		return err
	}
	return e.deliver(ctx, path, direct, write, func() (any, string) {
		return map[string]any{"file": path, "keys": count}, fmt.Sprintf("%s  %s", path, term.Plural(count, "key"))
	})
}

// exportKeys unwraps the users' keys and writes them to w, encrypted to recipients.
func exportKeys(
	ctx context.Context, c *client.Client, cluster string, held crypto.MasterKeys, w io.Writer, to []string,
) (count int, err error) {
	export, err := crypto.NewExport(w, cluster, time.Now(), to...)
	if err != nil {
		return 0, err
	}
	ring := crypto.NewRing(held.All()...)
	err = c.UserKeys(ctx, func(k wire.UserKey) error {
		key, err := ring.UnwrapUserKey(k.User, k.Key, k.Wrapped)
		if errors.Is(err, crypto.ErrOtherMaster) {
			return &hintedError{err, "export on a machine that has the cluster's master key: imgcluster keys status"}
		}
		if err != nil {
			return err
		}
		defer key.Zero()
		count++
		return export.Add(k.User, k.Key, key)
	})
	if err == nil {
		err = export.Close()
	}
	return count, err
}
