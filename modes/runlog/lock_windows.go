package runlog

import (
	"errors"
	"math"
	"os"

	"golang.org/x/sys/windows"
)

// isLocked locks a file, and reports whether another process has done so. What is locked is a byte far behind
// its end, since Windows lets no other process read what is locked.
func isLocked(f *os.File) bool {
	at := windows.Overlapped{Offset: math.MaxUint32, OffsetHigh: math.MaxInt32}
	err := windows.LockFileEx(windows.Handle(f.Fd()),
		windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &at)
	return errors.Is(err, windows.ERROR_LOCK_VIOLATION)
}

// renameOpen renames a file that is open here. Windows renames none that is open: for a moment another run
// may take it, and then both are refused or one is.
func renameOpen(f *os.File, from, to string) error {
	return errors.Join(f.Close(), os.Rename(from, to))
}

// removeOpen closes and removes a file. If the second fails, an empty file is left.
func removeOpen(f *os.File, path string) error {
	defer os.Remove(path)
	return f.Close()
}
