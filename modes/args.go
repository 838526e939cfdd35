package modes

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// anyNumber is the most of args for a command with any number of arguments.
const anyNumber = -1

// args returns a check of the number of a command's arguments, whose error shows the command's usage.
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

// typosMax is how many letters may be wrong in a command for a suggestion.
const typosMax = 2

// onlyCommands is the check of arguments for a command that only has subcommands.
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

// wanted says which values an option takes, by its type. It has the types whose own error does not say so.
var wanted = map[string]string{
	"int":      "a whole number",
	"int64":    "a whole number",
	"uint32":   "a whole number from 0",
	"uint64":   "a whole number from 0",
	"float64":  "a number, such as 2.5",
	"duration": "a time, such as 90s or 10m",
	"intSlice": "whole numbers, such as 1,3",
	"bool":     "true or false",
}

// flagError makes an error about an option a usage error, without the text of the number parser.
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
