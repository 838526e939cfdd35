package modes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/printable"
	"imgcluster/cluster/wait"
	"imgcluster/cluster/wire"
	"imgcluster/modes/term"
)

func newUser(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Add, list or remove users",
		Long: `Add, list or remove users. Each has a key of its own, which its images are
encrypted with.`,
		Args: onlyCommands,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newUserAdd(e), newUserList(e), newUserRm(e))
	return cmd
}

func newUserAdd(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "add USER",
		Short: "Add a user",
		Long: `Add a user. There is no need to: an access key for a new user makes it, and so
does the first image that an administrator stores for it.`,
		Example: "  imgcluster user add alice",
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runUserAdd(cmd.Context(), e, args[0])
		},
	}
}

func runUserAdd(ctx context.Context, e *env, name string) error {
	if err := checkUser(name); err != nil {
		return err
	}
	_, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	made, err := c.AddUser(ctx, name)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(made)
	}
	e.say("user %s is there since %s", printable.Argument(made.Name), made.Created.Local().Format(time.DateTime))
	return nil
}

func newUserList(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the users, and removals that are not complete",
		Example: "  imgcluster user list",
		Args:    args(0, 0),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runUserList(cmd.Context(), e) },
	}
}

func runUserList(ctx context.Context, e *env) error {
	_, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	t := tabwriter.NewWriter(printable.Writer(e.out), 0, 0, 2, ' ', 0)
	if !e.json {
		fmt.Fprintln(t, "user\tcreated")
	}
	count := 0
	var removals []wire.Removal
	for u, err := range c.Users(ctx, &removals) {
		if err != nil {
			return err
		}
		count++
		if e.json {
			if err := e.printJSON(u); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(t, "%s\t%s\n", u.Name, u.Created.Local().Format(time.DateTime))
	}
	if e.json {
		return nil
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, x := range removals {
		e.say("%s", leftOf(x))
	}
	e.say("%s", term.Plural(count, "user"))
	return nil
}

type userRmOptions struct{ yes, detach bool }

func newUserRm(e *env) *cobra.Command {
	var o userRmOptions
	cmd := &cobra.Command{
		Use:   "rm USER",
		Short: "Remove a user with all its images and access keys",
		Long: `Remove a user with all its images and access keys, for good. It asks first. The
user's key is destroyed at once: from then on no node can read the images. The
files, and what the databases keep of the wrapped key and of records until they
are compacted, are deleted after that, and the command waits for it. Who has an
older copy of a node's disk and the master key can still read what is in it.`,
		Example:           "  imgcluster user rm alice",
		Args:              args(1, 1),
		ValidArgsFunction: first(e.completeUser),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runUserRm(cmd.Context(), e, args[0], o)
		},
	}
	cmd.Flags().BoolVar(&o.yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&o.detach, "no-wait", false, "do not wait until files and old values are deleted")
	return cmd
}

// errUserKept is the error when the user does not confirm.
var errUserKept = errors.New("nothing was removed")

func runUserRm(ctx context.Context, e *env, name string, o userRmOptions) error {
	if err := checkUser(name); err != nil {
		return err
	}
	_, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	if !o.yes {
		if !term.Is(fileOf(e.in)) {
			return usagef("add --yes to remove the user without a terminal", "user rm asks before it removes a user")
		}
		question := fmt.Sprintf("Remove user %s with all images and access keys, for good?",
			printable.Argument(name))
		if err := e.ask(question, errUserKept); err != nil {
			return err
		}
	}
	left, err := c.RemoveUser(ctx, name)
	if err != nil {
		return err
	}
	e.say("user %s is removed: the keys are destroyed, and no node can read the images",
		printable.Argument(name))
	if o.detach {
		if len(left.Shards)+len(left.Nodes) > 0 {
			e.say("%s", leftOf(left))
		}
		return nil
	}
	if err := awaitRemoval(ctx, e, c, left); err != nil {
		return fmt.Errorf("the removal continues without this command; see imgcluster user list: %w", err)
	}
	e.say("its files are deleted, and no node keeps old values of its keys or records")
	return nil
}

// leftOf returns what a removal still has to do.
func leftOf(x wire.Removal) string {
	text := fmt.Sprintf("user %s was removed at %s", printable.Argument(x.User),
		x.Since.Local().Format(time.DateTime))
	if len(x.Shards) > 0 {
		text += fmt.Sprintf("; images are left in %s", term.Plural(len(x.Shards), "shard"))
	}
	if len(x.Nodes) > 0 {
		text += "; the disks of nodes " + term.List(x.Nodes) + " may have old values until they are compacted"
	}
	return text
}

// removalEvery is the time between two requests for the progress of a removal.
const removalEvery = 200 * time.Millisecond

// awaitRemoval waits until nothing is left of a removal, and says what it waits for.
func awaitRemoval(ctx context.Context, e *env, c *client.Client, left wire.Removal) error {
	said, last := "", time.Now()
	for len(left.Shards)+len(left.Nodes) > 0 {
		if !wait.For(ctx, removalEvery) {
			return context.Cause(ctx)
		}
		page, err := c.UserPage(ctx, left.User)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(page.Removals, func(x wire.Removal) bool { return x.Number == left.Number })
		if i < 0 {
			return nil
		}
		left = page.Removals[i]
		text := leftOf(left)
		if time.Since(last) >= term.ProgressEvery && text != said || time.Since(last) >= 6*term.ProgressEvery {
			said, last = text, time.Now()
			e.say("still waiting: %s%s", text, down(ctx, c, left))
		}
	}
	return nil
}

// down names the nodes that a removal waits for and that do not answer.
func down(ctx context.Context, c *client.Client, x wire.Removal) string {
	status, err := c.Cluster(ctx)
	if err != nil {
		return ""
	}
	var ids []image.NodeID
	for _, n := range status.Nodes {
		if n.State == wire.NodeDown && slices.Contains(x.Nodes, n.ID) {
			ids = append(ids, n.ID)
		}
	}
	if len(ids) == 0 {
		return ""
	}
	return "; nodes " + term.List(ids) + " are down, and do it once they are started"
}
