package modes

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"imgcluster/modes/term"
)

// statusTexts says what the exit statuses mean.
var statusTexts = map[int]string{
	exitDone:     "done",
	exitFailed:   "failed",
	exitUsage:    "usage or configuration",
	exitNobody:   "no quorum or nobody answers",
	exitVerdict:  "the report's verdict is a failure",
	exitCanceled: "stopped by Ctrl-C",
}

// ending is how a command ends.
type ending struct {
	statuses []int
	said     map[int]string // in place of statusTexts
}

// asksNodes are the exit statuses of a command that asks nodes, as most do.
var asksNodes = []int{exitDone, exitFailed, exitUsage, exitNobody, exitCanceled}

// endings are those of the commands that end otherwise, by their paths.
var endings = map[string]ending{
	"": {statuses: []int{exitDone, exitFailed, exitUsage, exitNobody, exitVerdict, exitCanceled}},
	"up": {[]int{exitDone, exitFailed, exitUsage, exitCanceled}, map[int]string{
		exitDone:     "stopped by Ctrl-C",
		exitCanceled: "stopped by it before the nodes were ready",
	}},
	"server": {asksNodes, map[int]string{
		exitDone:     "stopped by a signal",
		exitCanceled: "stopped by one before it served",
	}},
	"demo":            {append(asksNodes, exitVerdict), nil},
	"init":            {statuses: staysHere},
	"restore":         {statuses: staysHere},
	"decrypt":         {statuses: staysHere},
	"generate":        {statuses: staysHere},
	"man":             {statuses: endsAtOnce},
	"version":         {statuses: endsAtOnce},
	"completion":      {statuses: endsAtOnce},
	"help":            {statuses: endsAtOnce},
	"config show":     {statuses: endsAtOnce},
	"config validate": {statuses: endsAtOnce},
	"doctor":          {staysHere, map[int]string{exitFailed: "a node would not start here, or not work"}},
	"export":          {asksNodes, map[int]string{exitFailed: "failed, or images could not be exported"}},
	"import":          {asksNodes, map[int]string{exitFailed: "failed, or images could not be imported"}},
	"put":             {asksNodes, map[int]string{exitFailed: "failed, or files were left out"}},
	"log-level":       {asksNodes, map[int]string{exitFailed: "failed, or a node could not be asked"}},
	"verify": {asksNodes, map[int]string{
		exitFailed: "failed, a copy stays bad, or a node could not be asked",
	}},
	"report": {append(staysHere, exitVerdict), map[int]string{
		exitVerdict: "a check or an upload failed, or the log is not complete",
	}},
	"stress": {append(asksNodes, exitVerdict), map[int]string{
		exitFailed:   "failed, or stopped by Ctrl-C, with a report on what was done",
		exitCanceled: "stopped by it before the first upload",
	}},
}

var (
	staysHere  = []int{exitDone, exitFailed, exitUsage, exitCanceled}
	endsAtOnce = []int{exitDone, exitFailed, exitUsage}
)

// pathOf is a command without the program's name, such as "user add".
func pathOf(cmd *cobra.Command) string {
	return strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()), " ")
}

// endingOf returns how a command ends. One that has only subcommands shows its help.
func endingOf(cmd *cobra.Command) ending {
	e, other := endings[pathOf(cmd)]
	switch {
	case other:
	case cmd.HasAvailableSubCommands():
		e.statuses = endsAtOnce
	default:
		e.statuses = asksNodes
	}
	e.statuses = slices.Sorted(slices.Values(e.statuses))
	return e
}

func (e ending) text(status int) string {
	if said := e.said[status]; said != "" {
		return said
	}
	return statusTexts[status]
}

// exitHelp says the exit statuses of a command in lines of a terminal.
func exitHelp(cmd *cobra.Command) string {
	e := endingOf(cmd)
	parts := make([]string, len(e.statuses))
	for i, status := range e.statuses {
		parts[i] = fmt.Sprintf("%d %s", status, e.text(status))
	}
	separator := ", "
	if slices.ContainsFunc(parts, func(s string) bool { return strings.Contains(s, ",") }) {
		separator = "; "
	}
	return term.Indent("", "Exit status: "+strings.Join(parts, separator)+".")
}

// exampleOf returns a command's examples. Those of one that has only subcommands are the first of each.
func exampleOf(cmd *cobra.Command) string {
	if cmd.HasExample() || !cmd.HasAvailableSubCommands() {
		return cmd.Example
	}
	var firsts []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			firsts = append(firsts, exampleLines(sub)[0])
		}
	}
	return strings.Join(firsts, "\n")
}

// exampleLines returns the examples of a command one by one. A line that ends in \ goes on in the next.
func exampleLines(cmd *cobra.Command) []string {
	const goesOn, mark = "\\\n", "\x00"
	lines := strings.Split(strings.ReplaceAll(exampleOf(cmd), goesOn, mark), "\n")
	for i := range lines {
		lines[i] = strings.ReplaceAll(lines[i], mark, goesOn)
	}
	return lines
}

// setHelp has every command's help begin with its examples and end with its exit statuses, within
// term.Width columns.
func setHelp(root *cobra.Command) {
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		io.WriteString(cmd.OutOrStdout(), helpOf(cmd)) // the output keeps its error
	})
	const examples = "{{if .HasExample}}\n\nExamples:\n{{.Example}}{{end}}" // they come before it
	wrapped := fmt.Sprintf(".FlagUsagesWrapped %d", term.Width)
	usage := strings.Replace(root.UsageTemplate(), examples, "", 1)
	root.SetUsageTemplate(strings.ReplaceAll(usage, ".FlagUsages", wrapped))
}

func helpOf(cmd *cobra.Command) string {
	return fmt.Sprintf("Examples:\n%s\n\n%s\n\n%s\n%s\n",
		exampleOf(cmd), cmp.Or(cmd.Long, cmd.Short+"."), cmd.UsageString(), exitHelp(cmd))
}

// addHelp adds the command help, which cobra would add later.
func addHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "help" {
			cmd.Long = "Show the help of a command, as its option --help does."
			cmd.Example = "  imgcluster help\n  imgcluster help key add"
		}
	}
}
