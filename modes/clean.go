package modes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"imgcluster/modes/runlog"
	"imgcluster/modes/stress"
	"imgcluster/modes/term"
)

// errKept is the error when the user does not confirm.
var errKept = errors.New("nothing was deleted")

func newClean(e *env) *cobra.Command {
	var o cleanOptions
	cmd := &cobra.Command{
		Use:   "clean",
		Short: "Delete the images that stress runs stored",
		Long: `Delete all images of a user, stresstest unless another one is named, or with
--log those that a run stored by its log and no others. It shows how many there
are and asks, then waits until the nodes have their disk back.`,
		Example: "  imgcluster clean\n" +
			"  imgcluster clean --user stresstest --yes\n" +
			"  imgcluster clean --log log.jsonl",
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("log") && cmd.Flags().Changed("user") {
				return usagef("leave out --user", "--log and --user: a log says whose images they are")
			}
			return runClean(cmd.Context(), e, o)
		},
	}
	cmd.Flags().StringVar(&o.user, "user", stressUser, "whose images")
	cmd.Flags().StringVar(&o.log, "log", "", "only the images that this log says were stored")
	cmd.Flags().BoolVar(&o.yes, "yes", false, "do not ask")
	return cmd
}

type cleanOptions struct {
	user, log string
	yes       bool
}

func runClean(ctx context.Context, e *env, o cleanOptions) error {
	if err := checkUser(o.user); err != nil {
		return err
	}
	var images []stress.Owned
	if o.log != "" {
		var err error
		if images, err = stress.ImagesOfLog(o.log); err != nil {
			return err
		}
	}
	cfg, c, err := e.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	if o.log == "" {
		for info, err := range c.All(ctx, o.user, "") {
			if err != nil {
				return err
			}
			images = append(images, stress.Owned{User: o.user, Name: info.Name, Bytes: info.Bytes})
		}
	}
	if len(images) > 0 && !o.yes {
		count := term.Plural(len(images), "image")
		if !term.Is(fileOf(e.in)) {
			return usagef("add --yes to delete them without a terminal",
				"%s are there, and clean asks before it deletes", count)
		}
		question := fmt.Sprintf("Delete %s, %s, of %s in %s?", count, term.Bytes(sumBytes(images)),
			owners(images), cfg.Cluster.Name)
		if err := e.ask(question, errKept); err != nil {
			return err
		}
	}
	p := e.progress()
	defer p.end()
	done, err := stress.Delete(ctx, c, images, p.stage)
	if err != nil {
		return err
	}
	if e.json {
		w := runlog.NewWriter(e.out)
		return errors.Join(w.Write(done), w.Close())
	}
	e.say("%s", stress.CleanedText(done))
	return nil
}

func sumBytes(images []stress.Owned) (sum int64) {
	for _, i := range images {
		sum += i.Bytes
	}
	return sum
}

// owners lists the users whose images they are.
func owners(images []stress.Owned) string {
	var users []string
	for _, i := range images {
		if !slices.Contains(users, i.User) {
			users = append(users, i.User)
		}
	}
	return strings.Join(users, ", ")
}
