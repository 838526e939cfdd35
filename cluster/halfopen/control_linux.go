package halfopen

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Lossy tells whether the connection waits for the answer to something that it has sent again.
func Lossy(conn syscall.Conn) (lossy bool) {
	c, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	c.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		lossy = err == nil && info.Ca_state != caOpen
	})
	return lossy
}

// caOpen is the state of a connection that has lost nothing, so far as it knows (TCP_CA_Open of linux/tcp.h).
const caOpen = 0

// limitUnsent bounds what the kernel keeps of an answer that the other end does not take, and so lets the writer
// see how fast it is taken. Accepted connections have it from the listening one.
func limitUnsent(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentBytesMax))
	})
	if err != nil {
		return err
	}
	return failed
}

// control makes a socket's options. Sent bytes may be unacknowledged for so long (tcp(7),
// TCP_USER_TIMEOUT), or wait for the other end to have room for them; 0: for as long as the system has it.
func control(unanswered time.Duration) func(_, _ string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			set := func(option int, value int64) error {
				return os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, option, int(value)))
			}
			failed = set(unix.TCP_USER_TIMEOUT, unanswered.Milliseconds())
			// What the kernel is too old for (the last two are of Linux 6.15) is done without.
			set(unix.TCP_THIN_LINEAR_TIMEOUTS, 1)
			set(unix.TCP_RTO_MAX_MS, retryMax.Milliseconds())
			set(unix.TCP_RTO_MIN_US, retryMin.Microseconds())
		})
		if err != nil {
			return err
		}
		return failed
	}
}
