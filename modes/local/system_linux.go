package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// UntilInputEnds says that the nodes must be started so that they end with their standard input, since the
// kernel does not kill them when this process ends.
const UntilInputEnds = false

// tie gives the process of a node a process group of its own, and has the kernel kill it when this process
// ends.
func tie(cmd *exec.Cmd) (untie func(), err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return func() {}, nil
}

// shortPath returns a path by its folder's descriptor, since a socket's path has at most 107 bytes
// (unix(7)). The caller calls done after the last use of the path.
func shortPath(path string) (short string, done func(), err error) {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), filepath.Base(path)), func() { folder.Close() }, nil
}

// listenPrivate listens on a socket that is never open to other users.
func listenPrivate(ctx context.Context, path string) (net.Listener, error) {
	private := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		outer := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }) // before bind
		return errors.Join(outer, err)
	}}
	return private.Listen(ctx, "unix", path)
}
