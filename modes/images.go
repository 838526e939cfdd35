package modes

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"imgcluster/cluster/printable"
	"imgcluster/modes/term"
)

func newLs(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "ls [USER[/PREFIX]]",
		Short: "List a user's images",
		Long: `List a user's images, a line each with the name at its end. On a terminal,
invisible characters of names are written out, such as \u202e; elsewhere names
are as they are. With --json each line is a JSON object.`,
		Example:           "  imgcluster ls alice\n  imgcluster ls alice/holiday/ --json",
		Args:              args(0, 1),
		ValidArgsFunction: first(e.completeList),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runLs(cmd.Context(), e, append(args, defaultUser)[0])
		},
	}
}

func runLs(ctx context.Context, e *env, what string) error {
	user, prefix, _ := strings.Cut(what, "/")
	_, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	shown := func(name string) string { return name } // scripts get the exact name
	if term.Is(fileOf(e.out)) {
		shown = printable.Text
	}
	out := bufio.NewWriter(e.out)
	defer out.Flush() // what came before an error
	json := json.NewEncoder(printable.Writer(out))
	count := 0
	bytes := int64(0)
	for info, err := range c.All(ctx, user, prefix) {
		if err != nil {
			return err
		}
		count++
		bytes += info.Bytes
		if e.json {
			err = json.Encode(info)
		} else {
			_, err = fmt.Fprintf(out, "%s  %7s  owner %d  copies %s  %s\n",
				info.Created.Local().Format("2006-01-02 15:04:05"), term.Bytes(info.Bytes), info.Owner,
				term.List(info.Replicas), shown(info.Name))
		}
		if err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if !e.json {
		of := "user " + printable.Argument(user)
		if prefix != "" {
			of += " under " + printable.Argument(prefix)
		}
		e.say("%s of %s, %s", term.Plural(count, "image"), of, term.Bytes(bytes))
	}
	return nil
}

func newRm(e *env) *cobra.Command {
	return &cobra.Command{
		Use:               "rm USER/NAME...",
		Short:             "Delete images",
		Example:           "  imgcluster rm alice/photo.png\n  imgcluster rm alice/a.png alice/b.png",
		Args:              args(1, anyNumber),
		ValidArgsFunction: e.completeImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runRm(cmd.Context(), e, args)
		},
	}
}

func runRm(ctx context.Context, e *env, names []string) error {
	for _, n := range names {
		if _, _, err := splitImage(n); err != nil {
			return err
		}
	}
	_, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	return e.forEach(ctx, "deleted", names, 0, func(i int) error {
		user, name, _ := splitImage(names[i])
		if err := c.Delete(ctx, user, name, ""); err != nil {
			return missing(user, name, err)
		}
		e.say("deleted %s", names[i])
		return nil
	})
}

func newStat(e *env) *cobra.Command {
	return &cobra.Command{
		Use:               "stat USER/NAME",
		Short:             "Show what is recorded of an image",
		Example:           "  imgcluster stat alice/photo.png\n  imgcluster stat alice/photo.png --json",
		Args:              args(1, 1),
		ValidArgsFunction: first(e.completeImage),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runStat(cmd.Context(), e, args[0])
		},
	}
}

func runStat(ctx context.Context, e *env, what string) error {
	user, name, err := splitImage(what)
	if err != nil {
		return err
	}
	_, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	info, err := c.Head(ctx, user, name)
	if err != nil {
		return missing(user, name, err)
	}
	if e.json {
		return e.printJSON(info)
	}
	out := printable.Writer(e.out)
	fmt.Fprintf(out, "image    %s/%s\n", user, info.Name)
	fmt.Fprintf(out, "size     %s (%d bytes)\n", term.Bytes(info.Bytes), info.Bytes)
	fmt.Fprintf(out, "type     %s\n", info.Type)
	fmt.Fprintf(out, "sha256   %s\n", info.SHA256)
	fmt.Fprintf(out, "version  %d\n", info.Version)
	fmt.Fprintf(out, "owner    node %d\n", info.Owner)
	fmt.Fprintf(out, "copies   nodes %s\n", term.List(info.Replicas))
	fmt.Fprintf(out, "shard    %d\n", info.Shard)
	fmt.Fprintf(out, "created  %s\n", info.Created.Local().Format("2006-01-02 15:04:05.000 -07:00"))
	return e.out.failure()
}
