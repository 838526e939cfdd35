//go:build !linux

package halfopen

import (
	"syscall"
	"time"
)

// control sets nothing: other systems have their own limits.
func control(time.Duration) func(_, _ string, _ syscall.RawConn) error { return nil }

// limitUnsent sets nothing.
func limitUnsent(_, _ string, _ syscall.RawConn) error { return nil }

// Lossy returns false: it is not known on other systems.
func Lossy(syscall.Conn) bool { return false }
