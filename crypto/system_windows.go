package crypto

import (
	"io/fs"
	"os"
	"os/exec"
)

// private is not known: the files of Windows have no mode. Who may read a key file is in its access control
// list, mostly that of its folder, and is not checked.
func private(*os.File, fs.FileInfo) bool { return true }

// killWithChildren does nothing: a command that is cancelled ends alone. The processes that it has started
// may go on; nobody waits for them.
func killWithChildren(*exec.Cmd) {}
