//go:build !linux

package bulkio

import "net"

// NewQuietConn returns the connection as it is: elsewhere than on Linux, Go makes no system calls but in the
// way that wakes its monitor thread.
func NewQuietConn(conn net.Conn) net.Conn { return conn }
