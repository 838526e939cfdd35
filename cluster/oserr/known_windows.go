package oserr

import (
	"cmp"
	"maps"

	"golang.org/x/sys/windows"
)

const closeHint = "close other programs, or give the machine more memory"

// The errors of Windows, whose numbers are not those that package syscall has for other systems' sake.
func init() {
	maps.Copy(known, map[windows.Errno]meaning{
		windows.ERROR_TOO_MANY_OPEN_FILES:  {Scarce, filesHint},
		windows.ERROR_NOT_ENOUGH_MEMORY:    {Scarce, always(closeHint)},
		windows.ERROR_OUTOFMEMORY:          {Scarce, always(closeHint)},
		windows.ERROR_DISK_FULL:            {Full, fullHint},
		windows.ERROR_HANDLE_DISK_FULL:     {Full, fullHint},
		windows.ERROR_DISK_QUOTA_EXCEEDED:  {Full, always(quotaHint)},
		windows.ERROR_FILE_TOO_LARGE:       {Full, always("choose a file system that takes files of this size")},
		windows.ERROR_ACCESS_DENIED:        {Denied, ownerHint},
		windows.ERROR_WRITE_PROTECT:        {Fixed, always("the disk is write-protected: choose another one")},
		windows.ERROR_CRC:                  {Broken, always("check the disk: chkdsk")},
		windows.ERROR_FILE_CORRUPT:         {Broken, always("check the disk: chkdsk")},
		windows.ERROR_FILE_NOT_FOUND:       {Missing, on("check the path", "")},
		windows.ERROR_PATH_NOT_FOUND:       {Missing, on("check the path", "")},
		windows.ERROR_INVALID_NAME:         {Wrong, on("choose a file name that Windows takes, unlike", "")},
		windows.ERROR_DIRECTORY:            {Wrong, on("a file is where a folder should be: check the path", "")},
		windows.ERROR_FILENAME_EXCED_RANGE: {Wrong, on("choose a shorter path than", "")},
		windows.ERROR_SHARING_VIOLATION:    {Held, heldHint},
		windows.ERROR_LOCK_VIOLATION:       {Held, heldHint},
	})
}

func filesHint(string) string { return "this process has too many open files: close other programs" }

func fullHint(path string) string { return "make room on the disk of " + cmp.Or(path, "the file") }

func ownerHint(path string) string {
	return "this user may not do that to " + cmp.Or(path, "the file") +
		": check its owner, its permissions and whether it is read-only"
}
