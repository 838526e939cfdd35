// Package halfopen makes TCP connections fail by themselves when the other end is gone without a
// word: its machine lost power or the network between is cut. Without it, one on which bytes wait for
// their acknowledgement hangs for a quarter of an hour, for keep-alive probes are sent on idle ones only.
package halfopen

import (
	"net"
	"time"
)

const (
	// Unanswered is how long bytes may wait for the other end to take them: less than the 15 s in which
	// a broken connection must be noticed, and six retransmissions on a network that loses packets.
	Unanswered = 12 * time.Second

	probeInterval = 4 * time.Second
	probeCount    = 2
)

// KeepAlive probes idle connections; a dead one is noticed after Unanswered.
func KeepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: probeInterval, Interval: probeInterval, Count: probeCount}
}

// Dialer returns a dialer of connections that notice.
func Dialer(timeout time.Duration) *net.Dialer {
	return &net.Dialer{Timeout: timeout, KeepAliveConfig: KeepAlive(), Control: control}
}
