package halfopen

import (
	"errors"
	"maps"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDialerSetsOptions: the options are set. The network tests of package cluster show their effect.
func TestDialerSetsOptions(t *testing.T) {
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := Dialer(time.Minute, Unanswered).Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	expectOptions(t, conn.(*net.TCPConn), nil)
	expectOptions(t, accepted.(*net.TCPConn),
		map[int]int{unix.TCP_USER_TIMEOUT: 0, unix.TCP_NOTSENT_LOWAT: unsentBytesMax})
	for _, c := range []net.Conn{conn, accepted} {
		if Lossy(c.(*net.TCPConn)) {
			t.Error("lossy before anything was sent")
		}
	}
}

// expectOptions expects the options of Dialer and Listen, with other values for some.
func expectOptions(t *testing.T, conn *net.TCPConn, others map[int]int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	newer := map[int]int{ // since Linux 6.15
		unix.TCP_RTO_MAX_MS: int(retryMax.Milliseconds()),
		unix.TCP_RTO_MIN_US: int(retryMin.Microseconds()),
	}
	want := map[int]int{
		unix.TCP_USER_TIMEOUT:         int(Unanswered.Milliseconds()),
		unix.TCP_KEEPIDLE:             int(probeInterval.Seconds()),
		unix.TCP_KEEPINTVL:            int(probeInterval.Seconds()),
		unix.TCP_KEEPCNT:              probeCount,
		unix.TCP_THIN_LINEAR_TIMEOUTS: 1,
	}
	maps.Copy(want, newer)
	maps.Copy(want, others)
	for option, want := range want {
		var got int
		var failed error
		err := raw.Control(func(fd uintptr) {
			got, failed = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option)
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := newer[option]; ok && errors.Is(failed, unix.ENOPROTOOPT) {
			continue // this kernel lacks it
		}
		if got < want || got > want+want/10 || failed != nil { // the kernel rounds up to its ticks
			t.Errorf("TCP option %d is %d, want %d: %v", option, got, want, failed)
		}
	}
}
