package local

import (
	"context"
	"net"
	"os"
	"os/exec"
	"syscall"
)

// UntilInputEnds says that the nodes must be started so that they end with their standard input, since the
// kernel does not kill them when this process ends.
const UntilInputEnds = true

// tie gives the process of a node a process group of its own, and a standard input that ends when this
// process does. A node that is paused then stays paused: only a signal ends it.
func tie(cmd *exec.Cmd) (untie func(), err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, held, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdin = in
	return func() { in.Close(); held.Close() }, nil
}

// listenPrivate listens on a socket that is never open to other users: macOS gives it its mode when it is
// made.
func listenPrivate(ctx context.Context, path string) (net.Listener, error) {
	defer syscall.Umask(syscall.Umask(0o177))
	return new(net.ListenConfig).Listen(ctx, "unix", path)
}
