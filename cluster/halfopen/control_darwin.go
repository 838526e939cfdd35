package halfopen

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lossRecovery is TCPCI_FLAG_LOSSRECOVERY of netinet/tcp.h of macOS.
const lossRecovery = 1

// Lossy reports whether the connection is sending again what the peer has not acknowledged. macOS says less
// than Linux: not when it only suspects a loss.
func Lossy(conn syscall.Conn) (lossy bool) {
	c, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	c.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPConnectionInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_CONNECTION_INFO)
		lossy = err == nil && info.Flags&lossRecovery != 0
	})
	return lossy
}

// limitUnsent limits the unsent bytes in the kernel, so that the writer of an answer notices how fast the
// client reads it.
func limitUnsent(_, _ string, c syscall.RawConn) error {
	return setOption(c, unix.TCP_NOTSENT_LOWAT, unsentBytesMax)
}

// control returns a function that limits for how long a socket sends bytes again that are not acknowledged; 0
// is the system's default. What macOS lacks beside Linux: the limit is in whole seconds and is not for bytes
// that wait for room in the peer's receive buffer, and the intervals between retransmissions grow (retryMin,
// retryMax), so a connection resumes later after a fault.
func control(unanswered time.Duration) func(_, _ string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		return setOption(c, unix.TCP_RXT_CONNDROPTIME, int((unanswered+time.Second-1)/time.Second))
	}
}

// setOption sets a TCP option of a socket. That a macOS lacks it does not matter as much as to have no
// connection: keep-alive probes and the time limits of requests remain.
func setOption(c syscall.RawConn, option, value int) error {
	return c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, option, value)
	})
}
