package halfopen

import (
	"cmp"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Lossy reports whether the connection waits for the acknowledgement of bytes that it has retransmitted, or
// suspects that some were lost.
func Lossy(conn syscall.Conn) (lossy bool) {
	c, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	c.Control(func(fd uintptr) {
		var info [2]byte // of struct tcp_info: the state, and the congestion state
		size := uint32(len(info))
		_, _, err := unix.RawSyscall6(unix.SYS_GETSOCKOPT, fd, unix.IPPROTO_TCP, unix.TCP_INFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		lossy = err == 0 && info[1] != caOpen
	})
	return lossy
}

// caOpen is the congestion state of a connection without signs of loss (TCP_CA_Open in linux/tcp.h).
const caOpen = 0

// limitUnsent limits the unsent bytes in the kernel, so that the writer of an answer notices how fast the
// client reads it. Accepted connections inherit it from the listening socket.
func limitUnsent(_, _ string, c syscall.RawConn) error {
	return onSocket(c, func(set setOption) error { return set(unix.TCP_NOTSENT_LOWAT, unsentBytesMax) })
}

// control returns a function that sets a socket's options. Sent bytes may be unacknowledged, or wait for
// room in the peer's receive buffer, for the time unanswered (TCP_USER_TIMEOUT in tcp(7)); 0 is the
// system's default.
func control(unanswered time.Duration) func(_, _ string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		return onSocket(c, func(set setOption) error {
			err := set(unix.TCP_USER_TIMEOUT, unanswered.Milliseconds())
			// Errors do not matter: older kernels lack these options, the last two before Linux 6.15.
			set(unix.TCP_THIN_LINEAR_TIMEOUTS, 1)
			set(unix.TCP_RTO_MAX_MS, retryMax.Milliseconds())
			set(unix.TCP_RTO_MIN_US, retryMin.Microseconds())
			return err
		})
	}
}

// setOption sets a TCP option of a socket.
type setOption func(option int, value int64) error

// onSocket calls fn with the means to set options of a socket.
func onSocket(c syscall.RawConn, fn func(set setOption) error) (err error) {
	closed := c.Control(func(fd uintptr) {
		err = fn(func(option int, value int64) error {
			err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, option, int(value))
			return os.NewSyscallError("setsockopt", err)
		})
	})
	return cmp.Or(closed, err)
}
