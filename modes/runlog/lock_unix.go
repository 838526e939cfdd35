//go:build unix

package runlog

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// isLocked locks a file, and reports whether another process has done so.
func isLocked(f *os.File) bool {
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// renameOpen renames a file that is open here.
func renameOpen(_ *os.File, from, to string) error { return os.Rename(from, to) }

// removeOpen removes and closes a file. If the first fails, an empty file is left.
func removeOpen(f *os.File, path string) error {
	os.Remove(path)
	return f.Close()
}
