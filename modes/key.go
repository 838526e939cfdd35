package modes

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"imgcluster/cluster/image"
	"imgcluster/cluster/printable"
	"imgcluster/cluster/wire"
	"imgcluster/modes/term"
)

func newKey(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make, list or remove access keys",
		Long: `Make, list or remove access keys, by which a cluster knows who sends a request.
On a machine that can read the cluster's master key no command needs one.`,
		Args: onlyCommands,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeyAdd(e), newKeyList(e), newKeyRm(e))
	return cmd
}

type keyAddOptions struct{ user, role, expires string }

func newKeyAdd(e *env) *cobra.Command {
	var o keyAddOptions
	cmd := &cobra.Command{
		Use:   "add --role ROLE [--user USER]",
		Short: "Make an access key, and show its secret once",
		Long: `Make an access key, and show its secret once: the cluster does not show it a
second time. A key of the role read reads and lists the images of its user, who
is made if need be; write stores and deletes them, too; metrics reads /metrics,
and admin does everything. These two may belong to a user, whose removal removes
them.`,
		Example: "  imgcluster key add --user alice --role write --expires 90d\n" +
			"  imgcluster key add --role metrics",
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runKeyAdd(cmd.Context(), e, o)
		},
	}
	cmd.Flags().StringVar(&o.user, "user", "", "whom the key belongs to")
	cmd.Flags().StringVar(&o.role, "role", "", "read, write, admin or metrics")
	cmd.Flags().StringVar(&o.expires, "expires", "",
		"how long the key is good, such as 90d or 12h (default: for ever)")
	return cmd
}

func runKeyAdd(ctx context.Context, e *env, o keyAddOptions) error {
	if o.role == "" {
		return usagef("add --role read, write, admin or metrics", "what is the key for?")
	}
	k := wire.KeyRequest{User: o.user, Role: image.Role(o.role)}
	if err := image.CheckRole(k.Role, k.User); err != nil {
		return usagef(image.HintOf(err), "%w", err)
	}
	if o.expires != "" {
		life, err := parseLife(o.expires)
		if err != nil {
			return err
		}
		k.Expires = time.Now().Add(life).UTC().Truncate(time.Second)
	}
	_, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	made, err := c.AddAccessKey(ctx, k)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(made)
	}
	out := printable.Writer(e.out)
	fmt.Fprintf(out, "access key  %s\n", made.ID)
	fmt.Fprintf(out, "secret      %s\n", made.Secret)
	fmt.Fprintf(out, "user        %s\n", orNone(made.User))
	fmt.Fprintf(out, "role        %s\n", made.Role)
	fmt.Fprintf(out, "expires     %s\n", ends(made.AccessKey))
	e.say("The secret is not shown again. %s.", useKey(made.ID))
	return e.out.failure()
}

// lifeMax bounds how long a key is good that ends at all.
const lifeMax = 100 * 365 * 24 * time.Hour

// parseLife reads a time such as 90d, or one of Go's forms.
func parseLife(text string) (time.Duration, error) {
	const hint = "give a time such as 90d, 12h or 30m"
	var life time.Duration
	var err error
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		life = time.Duration(n) * 24 * time.Hour
	} else {
		life, err = time.ParseDuration(text)
	}
	switch {
	case err != nil:
		return 0, usagef(hint, "--expires %.40q is not a time", text)
	case life <= 0 || life > lifeMax:
		return 0, usagef(hint+", or leave it out for a key that is good for ever",
			"--expires %.40q is not between now and 100 years", text)
	}
	return life, nil
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func ends(k wire.AccessKey) string {
	switch {
	case k.Expires.IsZero():
		return "never"
	case !k.Expires.After(time.Now()):
		return "expired " + k.Expires.Local().Format(time.DateTime)
	}
	return k.Expires.Local().Format(time.DateTime)
}

func newKeyList(e *env) *cobra.Command {
	var user string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List access keys",
		Long: `List access keys, without their secrets: all of them for an administrator, else
those of the user whose key the command has.`,
		Example: "  imgcluster key list\n  imgcluster key list --user alice",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runKeyList(cmd.Context(), e, user)
		},
	}
	cmd.Flags().StringVar(&user, "user", "", "only keys of this user")
	return cmd
}

func runKeyList(ctx context.Context, e *env, user string) error {
	_, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	t := tabwriter.NewWriter(printable.Writer(e.out), 0, 0, 2, ' ', 0)
	count := 0
	for k, err := range c.AccessKeys(ctx, user) {
		if err != nil {
			return err
		}
		count++
		if e.json {
			if err := e.printJSON(k); err != nil {
				return err
			}
			continue
		}
		if count == 1 {
			fmt.Fprintln(t, "access key\tuser\trole\tcreated\texpires")
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", k.ID, orNone(k.User), k.Role,
			k.Created.Local().Format(time.DateTime), ends(k))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if !e.json {
		e.say("%s", term.Plural(count, "access key"))
	}
	return nil
}

func newKeyRm(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "rm ID...",
		Short: "Remove access keys",
		Long: `Remove access keys. Each node refuses a removed key from the moment that it has
applied the removal; a request that was let in before goes on to its end.`,
		Example:           "  imgcluster key rm ICAAAAAAAAAAAAAAAAAA",
		Args:              args(1, anyNumber),
		ValidArgsFunction: e.completeKey,
		RunE: func(cmd *cobra.Command, ids []string) error {
			return runKeyRm(cmd.Context(), e, ids)
		},
	}
}

func runKeyRm(ctx context.Context, e *env, ids []string) error {
	_, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	return e.forEach(ctx, "removed", ids, 0, func(i int) error {
		if err := c.RemoveAccessKey(ctx, ids[i]); err != nil {
			return err
		}
		e.say("removed %s", ids[i])
		return nil
	})
}
