// Package halfopen makes TCP connections that cope with a network which fails. They fail by themselves
// when the other end is gone without a word: its machine lost power or the network between is cut.
// Without it, one on which bytes wait for their acknowledgement hangs for a quarter of an hour, for
// keep-alive probes are sent on idle ones only. And they go on at once when the network is well
// again: without it TCP waits as long again as the fault lasted.
package halfopen

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"
)

const (
	// Unanswered is how long bytes may wait for the other end to take them: less than the 15 s in which
	// a broken connection must be noticed. So that a server which reads slowly is not taken for dead, it
	// is longer than that may pause.
	Unanswered = 12 * time.Second

	probeInterval = 4 * time.Second
	probeCount    = 2

	// unsentBytesMax is what one connection of a server may have in the kernel that is still to be sent.
	unsentBytesMax = 128 << 10

	// What is lost is sent again after the round trip and retryMin more, TCP's own 200 ms being meant for
	// any network, and then in intervals that grow to retryMax, not to two minutes.
	retryMin = 50 * time.Millisecond
	retryMax = time.Second
)

// KeepAlive probes idle connections; a dead one is noticed after Unanswered.
func KeepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: probeInterval, Interval: probeInterval, Count: probeCount}
}

// Dialer returns a dialer of connections that notice when nobody takes what was sent for so long.
func Dialer(timeout, unanswered time.Duration) *net.Dialer {
	d := &net.Dialer{Timeout: timeout, KeepAliveConfig: KeepAlive(), Control: control(unanswered)}
	d.SetMultipathTCP(false)
	return d
}

// Listen opens a port for connections that notice too. Multipath TCP, the default, knows no such options.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	return listen(ctx, address, control(Unanswered))
}

// ListenForClients is Listen for answers of any length: a client that reads slowly has its receive buffer full for
// longer than Unanswered, and is not gone for that. Whoever writes to it has deadlines.
func ListenForClients(ctx context.Context, address string) (net.Listener, error) {
	options := control(0)
	return listen(ctx, address, func(network, address string, c syscall.RawConn) error {
		return errors.Join(options(network, address, c), limitUnsent(network, address, c))
	})
}

func listen(ctx context.Context, address string, options func(network, address string, c syscall.RawConn) error) (net.Listener, error) {
	l := &net.ListenConfig{KeepAliveConfig: KeepAlive(), Control: options}
	l.SetMultipathTCP(false)
	return l.Listen(ctx, "tcp", address)
}
