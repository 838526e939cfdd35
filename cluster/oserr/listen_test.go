package oserr

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestListener(t *testing.T) {
	listen := func(err error) error {
		return &net.OpError{Op: "listen", Net: "tcp", Err: os.NewSyscallError("bind", err)}
	}
	own := Listener{Setting: "api_port"}
	other := Listener{Setting: "api_port", Listen: true}
	ports := Listener{Setting: "raft_port", Listen: true, ListenPorts: true}
	unknown := &net.DNSError{Err: "no such host", Name: "x"}
	for _, c := range []struct {
		l    Listener
		err  error
		want string
	}{
		{own, listen(syscall.EADDRINUSE), "change api_port of this node in every node's configuration"},
		{other, listen(syscall.EADDRINUSE), "change api_port of this node"},
		{ports, listen(syscall.EADDRINUSE), "another one in node.listen"},
		{Listener{}, fmt.Errorf("raft: %w", syscall.EADDRINUSE), "another program has this port"},
		{own, listen(syscall.EADDRNOTAVAIL), "set node.listen, such as 0.0.0.0"},
		{other, listen(syscall.EADDRNOTAVAIL), "correct node.listen"},
		{own, &net.OpError{Op: "listen", Err: unknown}, "or set node.listen"},
		{ports, &net.OpError{Op: "listen", Err: unknown}, "correct node.listen"},
		{own, listen(syscall.EACCES), "api_port"},
		{own, listen(syscall.EMFILE), "ulimit -n"},
	} {
		if got := c.l.Hint(c.err); !strings.Contains(got, c.want) {
			t.Errorf("%+v: %v has the hint %q, not %q", c.l, c.err, got, c.want)
		}
	}
	if got := own.Hint(errors.New("x")); got != "" {
		t.Errorf("a hint for nothing: %q", got)
	}
	for _, err := range []error{syscall.EADDRINUSE, syscall.EADDRNOTAVAIL} {
		if Hint(err, "/dir") != (Listener{}).Hint(err) {
			t.Errorf("%v has two hints", err)
		}
	}
}
