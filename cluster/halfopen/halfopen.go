// Package halfopen makes TCP connections that detect half-open peers and recover quickly. A connection fails
// when its peer vanishes without closing it, because the host lost power or the network is cut. With the
// system's defaults one with unacknowledged bytes hangs for a quarter of an hour, because keep-alive probes
// are sent on idle connections only. And a connection resumes at once when the network has recovered: by
// default TCP waits as long again as the fault lasted. All connections between nodes, and of clients, are
// made here.
package halfopen

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"
)

const (
	// Unanswered is how long sent bytes may wait until the peer takes them. It is less than the 15 s in
	// which a broken connection must be noticed, and longer than a slow server may pause reading.
	Unanswered = 12 * time.Second

	probeInterval = 4 * time.Second
	probeCount    = 2

	// unsentBytesMax is how many unsent bytes the kernel holds for one accepted connection.
	unsentBytesMax = 128 << 10

	// Lost bytes are retransmitted after the round-trip time plus retryMin (TCP's default is 200 ms), and
	// then at intervals that grow to retryMax (by default to two minutes).
	retryMin = 50 * time.Millisecond
	retryMax = time.Second
)

// KeepAlive returns the settings for probes of idle connections, which detect a dead one after Unanswered.
func KeepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{
		Enable:   true,
		Idle:     probeInterval,
		Interval: probeInterval,
		Count:    probeCount,
	}
}

// Dialer returns a dialer with a connect timeout. Its connections fail when sent bytes wait longer than
// unanswered.
func Dialer(timeout, unanswered time.Duration) *net.Dialer {
	d := &net.Dialer{Timeout: timeout, KeepAliveConfig: KeepAlive(), Control: control(unanswered)}
	d.SetMultipathTCP(false)
	return d
}

// Listen listens on a TCP address. Unlike those of Dialer, accepted connections may have sent bytes wait: the
// receive buffer of a client that reads a long answer slowly may be full for longer. The writers of answers
// set deadlines instead. Multipath TCP, Go's default, is off, because it lacks these options.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	options := control(0)
	l := &net.ListenConfig{
		KeepAliveConfig: KeepAlive(),
		Control: func(network, address string, c syscall.RawConn) error {
			return errors.Join(options(network, address, c), limitUnsent(network, address, c))
		},
	}
	l.SetMultipathTCP(false)
	return l.Listen(ctx, "tcp", address)
}
