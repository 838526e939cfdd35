//go:build unix

package exchange

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// readFlags open a file that is no link, and no pipe that would be waited for.
const readFlags = unix.O_NOFOLLOW | unix.O_NONBLOCK

// lasting are errors that come again with every other file.
var lasting = []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO, unix.EMFILE}

// unfitting are those of a path that a file system does not take, or that something is in the way of.
var unfitting = []error{
	unix.ENAMETOOLONG, unix.EINVAL, unix.EILSEQ, unix.ENOTDIR, unix.EISDIR, unix.EEXIST, unix.ENOTEMPTY,
}

// isLocked locks a folder, and reports whether another process has done so. On a file system without locks
// none has.
func isLocked(folder *os.File) bool {
	return errors.Is(unix.Flock(int(folder.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// freeBytes returns how much room there is; ok is false where the file system does not say so.
func freeBytes(folder *os.File) (bytes int64, ok bool) {
	var st unix.Statfs_t
	if unix.Fstatfs(int(folder.Fd()), &st) != nil || st.Blocks == 0 {
		return 0, false
	}
	return int64(st.Bavail) * int64(st.Bsize), true
}

// syncFolder makes the names in a folder durable.
func syncFolder(folder *os.File) error { return folder.Sync() }

// IsPart reports whether a part of an image's name can be one of a path.
func IsPart(string) bool { return true }
