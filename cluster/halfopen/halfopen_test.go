//go:build linux

package halfopen

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The network tests of the cluster package try what the options do; here, that they are set.
func TestDialerSetsOptions(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := Dialer(time.Minute).Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for option, want := range map[int]int{
		unix.TCP_USER_TIMEOUT: int(Unanswered.Milliseconds()), unix.TCP_KEEPIDLE: int(probeInterval.Seconds()),
		unix.TCP_KEEPINTVL: int(probeInterval.Seconds()), unix.TCP_KEEPCNT: probeCount,
	} {
		var got int
		var failed error
		if err := raw.Control(func(fd uintptr) { got, failed = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option) }); err != nil || failed != nil {
			t.Fatal(err, failed)
		}
		if got != want {
			t.Errorf("TCP option %d is %d, want %d", option, got, want)
		}
	}
}
