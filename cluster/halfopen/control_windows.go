package halfopen

import (
	"syscall"
	"time"

	"golang.org/x/sys/windows"
)

// limitUnsent does nothing: it is for the answers of a node, and none runs on Windows.
func limitUnsent(_, _ string, _ syscall.RawConn) error { return nil }

// control returns a function that limits for how long a socket sends bytes again that are not acknowledged; 0
// is the system's default. What Windows lacks beside Linux: the limit is in whole seconds, and the intervals
// between retransmissions grow (retryMin, retryMax), so a connection resumes later after a fault. Where the
// system does not know the option, its default is left, 21 s.
func control(unanswered time.Duration) func(_, _ string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		if unanswered == 0 {
			return nil
		}
		return c.Control(func(fd uintptr) {
			seconds := int((unanswered + time.Second - 1) / time.Second)
			_ = windows.SetsockoptInt(windows.Handle(fd), windows.IPPROTO_TCP, windows.TCP_MAXRT, seconds)
		})
	}
}
