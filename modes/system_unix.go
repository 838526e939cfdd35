//go:build unix

package modes

import (
	"errors"
	"syscall"

	"github.com/spf13/cobra"
)

// nodesHere is what the help says of nodes on this system.
const nodesHere = ""

// examplesHere are what the help of the program begins with on this system.
const examplesHere = `  imgcluster demo      # all of it in a minute, in a temporary folder
  imgcluster up        # three nodes on this machine, until Ctrl-C
`

// nodeCommands are the commands that run nodes, or prepare a machine for that.
func nodeCommands(e *env) []*cobra.Command {
	return []*cobra.Command{newDemo(e), newUp(e), newServer(e), newInit(e), newRestore(e), newDoctor(e)}
}

// isClosedPipe reports whether a write failed because the reader has closed its end.
func isClosedPipe(err error) bool { return errors.Is(err, syscall.EPIPE) }
