package halfopen

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// control limits how long sent bytes may be unacknowledged (tcp(7), TCP_USER_TIMEOUT). So that a
// server which reads slowly is not taken for dead, it has to be longer than that may pause.
func control(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(Unanswered.Milliseconds())))
	})
	if err != nil {
		return err
	}
	return failed
}
