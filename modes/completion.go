package modes

import (
	"cmp"
	"context"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/printable"
	"imgcluster/cluster/wire"
	"imgcluster/config"
	"imgcluster/modes/runlog"
	"imgcluster/modes/stress"
)

const (
	completionsMax  = 200         // that a shell is given at once
	completionLimit = time.Second // for all that is asked for them
)

// directive says what a shell does besides with what it is given.
type directive = cobra.ShellCompDirective

func newCompletion(e *env) *cobra.Command {
	shells := map[string]func(*cobra.Command) error{
		"bash":       func(root *cobra.Command) error { return root.GenBashCompletionV2(e.out, true) },
		"zsh":        func(root *cobra.Command) error { return root.GenZshCompletion(e.out) },
		"fish":       func(root *cobra.Command) error { return root.GenFishCompletion(e.out, true) },
		"powershell": func(root *cobra.Command) error { return root.GenPowerShellCompletionWithDesc(e.out) },
	}
	names := slices.Sorted(maps.Keys(shells))
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print the script that has a shell complete commands",
		Long: `Print the script that has a shell complete commands, options and their values,
and users and images, which it asks the cluster for: the first 200, and none
when no node answers within a second. The Debian package has those of bash, zsh
and fish; bash needs the package bash-completion.`,
		Example: "  source <(imgcluster completion bash)\n" +
			"  imgcluster completion zsh >\"${fpath[1]}/_imgcluster\"\n" +
			"  imgcluster completion fish >~/.config/fish/completions/imgcluster.fish\n" +
			"  imgcluster completion powershell | Out-String | Invoke-Expression",
		Args:      args(1, 1),
		ValidArgs: names,
		RunE: func(cmd *cobra.Command, args []string) error {
			write := shells[args[0]]
			if write == nil {
				return usagef("use one of "+strings.Join(names, ", "), "no completion for the shell %q", args[0])
			}
			return write(cmd.Root())
		},
	}
}

// takesFiles finds, in a command's usage, arguments that are files.
var takesFiles = regexp.MustCompile(`\b(?:FILE|LOG|DIR|PATH)\b`)

// completeAll has every argument and option that says nothing of its own completed: with files where it takes
// some, by what completions says of an option, else with nothing.
func completeAll(e *env, cmd *cobra.Command) {
	if cmd.ValidArgsFunction == nil && cmd.ValidArgs == nil && !takesFiles.MatchString(cmd.Use) {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	values := e.completions()
	flags := func(f *pflag.Flag) {
		if _, own := cmd.GetFlagCompletionFunc(f.Name); own || f.NoOptDefVal != "" {
			return
		}
		complete := values[f.Name]
		if complete == nil {
			complete = cobra.NoFileCompletions
		}
		if err := cmd.RegisterFlagCompletionFunc(f.Name, complete); err != nil {
			panic(err) // the flag is the command's
		}
	}
	cmd.LocalNonPersistentFlags().VisitAll(flags)
	cmd.PersistentFlags().VisitAll(flags)
	for _, sub := range cmd.Commands() {
		completeAll(e, sub)
	}
}

// completions has the values of options, by name.
func (e *env) completions() map[string]cobra.CompletionFunc {
	one := func(choices ...string) cobra.CompletionFunc {
		return cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp)
	}
	file := cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault)
	folder := cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
	return map[string]cobra.CompletionFunc{
		"config":    cobra.FixedCompletions([]string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt),
		"set":       completeSetting,
		"user":      e.completeUser,
		"id":        e.completeNode,
		"node":      e.completeNode,
		"role":      one(texts(image.Roles)...),
		"profile":   one(slices.SortedFunc(maps.Keys(stress.Profiles), byUploads)...),
		"arrivals":  one(runlog.ArrivalsConstant, runlog.ArrivalsPoisson),
		"delivery":  one(texts(client.Deliveries)...),
		"log-level": one(config.Choices("log.level")...),
		"output":    file,
		"keys":      file,
		"identity":  file,
		"lost":      file,
		"log":       file,
		"resume":    file,
		"html":      file,
		"compare":   file,
		"out":       folder,
		"images":    folder,
		"data-dir":  folder,
	}
}

// texts returns values as what they are.
func texts[T ~string](values []T) []string {
	list := make([]string, len(values))
	for i, v := range values {
		list[i] = string(v)
	}
	return list
}

func byUploads(a, b string) int { return cmp.Compare(stress.Profiles[a], stress.Profiles[b]) }

// completeSetting completes --set: first a key, then its choices, or its default where it has none.
func completeSetting(_ *cobra.Command, _ []string, typed string) ([]string, directive) {
	key, _, value := strings.Cut(typed, "=")
	var found []string
	for _, s := range config.Default().Settings() {
		switch {
		case !value:
			found = append(found, cobra.CompletionWithDesc(s.Key+"=", s.Description))
		case s.Key == key && config.Choices(key) == nil:
			found = append(found, s.Key+"="+s.Default)
		case s.Key == key:
			for _, choice := range config.Choices(key) {
				found = append(found, s.Key+"="+choice)
			}
		}
	}
	after := cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	if !value {
		after |= cobra.ShellCompDirectiveNoSpace
	}
	return startingWith(typed, found), after
}

// completeNode completes the ID of a node of the configuration. No node is asked.
func (e *env) completeNode(cmd *cobra.Command, args []string, typed string) ([]string, directive) {
	var ids []string
	if cfg, err := e.quietSettings(cmd); err == nil {
		for _, n := range cfg.Cluster.Nodes {
			ids = append(ids, cobra.CompletionWithDesc(strconv.Itoa(int(n.ID)), n.APIAddr()))
		}
	}
	return startingWith(typed, without(args, ids)), cobra.ShellCompDirectiveNoFileComp
}

// completeUser completes the name of a user.
func (e *env) completeUser(cmd *cobra.Command, _ []string, typed string) ([]string, directive) {
	return e.complete(cmd, func(ctx context.Context, c *client.Client, add func(string) bool) {
		users(ctx, c, typed, add)
	}), cobra.ShellCompDirectiveNoFileComp
}

// completeList completes USER/PREFIX.
func (e *env) completeList(cmd *cobra.Command, args []string, typed string) ([]string, directive) {
	if strings.Contains(typed, "/") {
		return e.completeImage(cmd, args, typed)
	}
	return e.completeUser(cmd, args, typed)
}

// completeImage completes USER/NAME: the user first.
func (e *env) completeImage(cmd *cobra.Command, args []string, typed string) ([]string, directive) {
	user, prefix, named := strings.Cut(typed, "/")
	found := e.complete(cmd, func(ctx context.Context, c *client.Client, add func(string) bool) {
		if !named {
			users(ctx, c, user, func(name string) bool { return add(name + "/") })
			return
		}
		query := wire.ListQuery{Prefix: prefix, Limit: completionsMax}
		list, _ := c.List(ctx, user, query) // without an answer there is nothing to complete
		for _, i := range list.Images {
			add(user + "/" + i.Name)
		}
	})
	if !named {
		return found, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	return without(args, found), cobra.ShellCompDirectiveNoFileComp
}

// completeKey completes the ID of an access key.
func (e *env) completeKey(cmd *cobra.Command, args []string, typed string) ([]string, directive) {
	found := e.complete(cmd, func(ctx context.Context, c *client.Client, add func(string) bool) {
		for k, err := range c.AccessKeys(ctx, "") {
			if err != nil || !add(cobra.CompletionWithDesc(k.ID, string(k.Role)+" "+printable.Text(k.User))) {
				return
			}
		}
	})
	return startingWith(typed, without(args, found)), cobra.ShellCompDirectiveNoFileComp
}

// first returns a completion for the first argument alone.
func first(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, directive) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, typed)
	}
}

// users calls add with the users whose names begin with a prefix, until it wants no more. Who may not list
// users gets the one whose access key the command has.
func users(ctx context.Context, c *client.Client, prefix string, add func(string) bool) {
	for u, err := range c.Users(ctx, new([]wire.Removal)) {
		switch {
		case image.KindOf(err) == image.KindForbidden:
			for k, err := range c.AccessKeys(ctx, "") {
				if err == nil && strings.HasPrefix(k.User, prefix) {
					add(k.User)
				}
				return // its other keys have the same user
			}
		case err != nil:
			return
		case strings.HasPrefix(u.Name, prefix):
			if !add(u.Name) {
				return
			}
		case u.Name > prefix:
			return
		}
	}
}

// complete returns what ask adds, up to completionsMax of it, within completionLimit. Names that a terminal
// would not show as they are, are left out. It prints nothing, and runs no program for the master key, which
// may ask its user something.
func (e *env) complete(
	cmd *cobra.Command, ask func(ctx context.Context, c *client.Client, add func(string) bool),
) (found []string) {
	ctx, cancel := context.WithTimeout(e.ctx, completionLimit)
	defer cancel()
	cfg, err := e.quietSettings(cmd)
	if err != nil {
		return nil
	}
	if _, named, _ := accessKey(); !named && cfg.KeyCommand() != "" && cfg.Secured() {
		return nil
	}
	o, err := e.clientOptions(cfg, client.Broadcast)
	if err != nil {
		return nil
	}
	o.Attempts = 1
	c, err := client.New(o)
	if err != nil {
		return nil
	}
	defer c.Close()
	ask(ctx, c, func(s string) bool {
		name, _, _ := strings.Cut(s, "\t")
		if printable.Text(name) == name {
			found = append(found, s)
		}
		return len(found) < completionsMax
	})
	return found
}

// quietSettings is settings with the options of the command that is completed.
func (e *env) quietSettings(cmd *cobra.Command) (*config.Config, error) {
	e.flags = cmd.Flags()
	return e.settings()
}

func startingWith(typed string, found []string) []string {
	return slices.DeleteFunc(found, func(s string) bool { return !strings.HasPrefix(s, typed) })
}

// without leaves out what the command line has already.
func without(args, found []string) []string {
	return slices.DeleteFunc(found, func(s string) bool {
		name, _, _ := strings.Cut(s, "\t")
		return slices.Contains(args, name)
	})
}
