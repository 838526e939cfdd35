package modes

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// anyNumber is for commands that take as many arguments as are given.
const anyNumber = -1

// args checks how many arguments a command gets. Its complaint shows how the command is called.
func args(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		hint := fmt.Sprintf("use: %s; more with --help", cmd.UseLine())
		switch {
		case len(args) < least:
			return usagef(hint, "%s is missing an argument", cmd.Name())
		case most != anyNumber && len(args) > most:
			return usagef(hint, "%s does not take the argument %q", cmd.Name(), args[most])
		}
		return nil
	}
}

// typosMax is how many letters may be wrong in a command that is still guessed.
const typosMax = 2

// onlyCommands is for commands that do nothing but hold others.
func onlyCommands(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := "see " + cmd.CommandPath() + " --help"
	cmd.SuggestionsMinimumDistance = typosMax
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		hint = "did you mean " + strings.Join(like, " or ") + "? All commands: " + cmd.CommandPath() + " --help"
	}
	path := strings.TrimPrefix(cmd.CommandPath()+" "+args[0], cmd.Root().Name()+" ")
	return usagef(hint, "unknown command %q", path)
}

// flagError makes a complaint about an option a usage error, without the words of the number parser.
func flagError(cmd *cobra.Command, err error) error {
	text, _, _ := strings.Cut(err.Error(), ": strconv.")
	return &usageError{err: errors.New(text), hint: "see " + cmd.CommandPath() + " --help"}
}
