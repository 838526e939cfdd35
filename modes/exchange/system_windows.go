package exchange

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/windows"
)

// readFlags are none: what is a link was left out before, and no path leads out of the folder.
const readFlags = 0

// lasting are errors that come again with every other file.
var lasting = []error{
	windows.ERROR_DISK_FULL, windows.ERROR_HANDLE_DISK_FULL, windows.ERROR_WRITE_PROTECT, windows.ERROR_CRC,
	windows.ERROR_TOO_MANY_OPEN_FILES,
}

// unfitting are those of a path that a file system does not take, or that something is in the way of.
var unfitting = []error{
	windows.ERROR_FILENAME_EXCED_RANGE, windows.ERROR_INVALID_NAME, windows.ERROR_DIRECTORY,
	windows.ERROR_ALREADY_EXISTS, windows.ERROR_FILE_EXISTS, windows.ERROR_DIR_NOT_EMPTY,
}

// isLocked reports that no other process has locked a folder: Windows locks files alone.
func isLocked(*os.File) bool { return false }

// freeBytes returns how much room there is; ok is false where the file system does not say so.
func freeBytes(folder *os.File) (bytes int64, ok bool) {
	path, err := windows.UTF16PtrFromString(folder.Name())
	if err != nil {
		return 0, false
	}
	var free uint64
	err = windows.GetDiskFreeSpaceEx(path, &free, nil, nil)
	return int64(free), err == nil
}

// syncFolder does nothing: Windows has no fsync of a folder.
func syncFolder(*os.File) error { return nil }

// IsPart reports whether a part of an image's name can be one of a path: Windows would take some for a
// device, for a stream of another file, or for a name without the dots at its end, and others it refuses.
func IsPart(part string) bool {
	return filepath.IsLocal(part) && strings.TrimRight(part, ". ") == part &&
		!strings.ContainsAny(part, `<>:"|?*\`)
}
