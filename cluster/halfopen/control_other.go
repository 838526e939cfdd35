//go:build !linux

package halfopen

import (
	"syscall"
	"time"
)

// control: other systems have their own limits.
func control(time.Duration) func(_, _ string, _ syscall.RawConn) error { return nil }

// limitUnsent: likewise.
func limitUnsent(_, _ string, _ syscall.RawConn) error { return nil }

// Lossy: other systems do not tell.
func Lossy(syscall.Conn) bool { return false }
