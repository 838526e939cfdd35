//go:build unix

package term

import (
	"os"
	"syscall"
)

// screenSignals are those that a Screen acts on.
var screenSignals = []os.Signal{
	syscall.SIGWINCH, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGTSTP, syscall.SIGCONT,
}

// paused acts on a signal after which the process goes on, and reports whether it was one.
func (s *Screen) paused(sig os.Signal) bool {
	switch sig {
	case syscall.SIGWINCH:
	case syscall.SIGTSTP:
		s.Leave()
		syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	case syscall.SIGCONT:
		s.enter()
	default:
		return false
	}
	return true
}

// dieOf ends the process by a signal that it does not catch any more.
func dieOf(sig syscall.Signal) { syscall.Kill(os.Getpid(), sig) }

// showsColors reports whether a terminal knows colours and can move its cursor.
func showsColors(*os.File) bool {
	kind := os.Getenv("TERM")
	return kind != "" && kind != "dumb"
}
