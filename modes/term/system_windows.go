package term

import (
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

// screenSignals are those that a Screen acts on: Ctrl-C, and the end of the console.
var screenSignals = []os.Signal{syscall.SIGINT, syscall.SIGTERM}

// paused reports that no signal pauses a process.
func (s *Screen) paused(os.Signal) bool { return false }

// dieOf ends the process as Ctrl-C ends one that does not catch it.
func dieOf(syscall.Signal) { windows.ExitProcess(uint32(windows.STATUS_CONTROL_C_EXIT)) }

// showsColors reports whether a console knows colours and can move its cursor, which it is asked to do:
// Windows 10 and later.
func showsColors(console *os.File) bool {
	if os.Getenv("TERM") == "dumb" {
		return false
	}
	handle := windows.Handle(console.Fd())
	var mode uint32
	if windows.GetConsoleMode(handle, &mode) != nil {
		return false
	}
	return windows.SetConsoleMode(handle, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}
