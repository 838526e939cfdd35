package modes

import (
	"errors"

	"github.com/spf13/cobra"
	"golang.org/x/sys/windows"
)

// nodesHere is what the help says of nodes on this system.
const nodesHere = `

Nodes run on Linux and macOS: the commands demo, up, server, init, restore and
doctor are there.`

// examplesHere are none: those of other systems run nodes.
const examplesHere = ""

// nodeCommands refuse the commands that run nodes, or prepare a machine for that. A node keeps its
// promises by what the file systems of Linux and macOS guarantee, and the master key by their file modes.
func nodeCommands(*env) []*cobra.Command {
	var commands []*cobra.Command
	for _, name := range []string{"demo", "up", "server", "init", "restore", "doctor"} {
		commands = append(commands, &cobra.Command{
			Use: name, Hidden: true, DisableFlagParsing: true,
			RunE: func(*cobra.Command, []string) error {
				return usagef("run imgcluster "+name+" on Linux or macOS; commands here reach its nodes by the "+
					"same imgcluster.yaml", "%s is not there on Windows", name)
			},
		})
	}
	return commands
}

// forbidCoreFiles has nothing to do: Go ends a crash on Windows without a dump of the memory. Other processes
// of this user may read that of this one.
func forbidCoreFiles() error { return nil }

// isClosedPipe reports whether a write failed because the reader has closed its end.
func isClosedPipe(err error) bool {
	return errors.Is(err, windows.ERROR_BROKEN_PIPE) || errors.Is(err, windows.ERROR_NO_DATA)
}
