package modes

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
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

// wanted says what the types of options take, for those whose own complaint does not.
var wanted = map[string]string{
	"int": "a whole number", "int64": "a whole number", "uint32": "a whole number from 0", "uint64": "a whole number from 0",
	"float64": "a number, such as 2.5", "duration": "a time, such as 90s or 10m", "intSlice": "whole numbers, such as 1,3", "bool": "true or false",
}

// flagError makes a complaint about an option a usage error, without the words of the number parser.
func flagError(cmd *cobra.Command, err error) error {
	text, _, parsed := strings.Cut(err.Error(), ": strconv.")
	if text, _, duration := strings.Cut(text, ": time: "); parsed || duration {
		var bad *pflag.InvalidValueError
		if errors.As(err, &bad) && errors.Is(err, strconv.ErrRange) {
			text += ": the number is out of range"
		} else if bad != nil && wanted[bad.GetFlag().Value.Type()] != "" {
			text += ": want " + wanted[bad.GetFlag().Value.Type()]
		}
		err = errors.New(text)
	}
	return &usageError{err: err, hint: "see " + cmd.CommandPath() + " --help"}
}
