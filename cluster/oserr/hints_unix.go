//go:build unix

package oserr

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

func filesHint(string) string {
	var limit unix.Rlimit
	have := ""
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		have = fmt.Sprintf("this process may have %d open files: ", limit.Cur)
	}
	return have + "raise it (ulimit -n, LimitNOFILE= of systemd), or lower limits.connections"
}

// fullHint returns the hint for a file system that lacks bytes or inodes, whichever it is.
func fullHint(path string) string {
	for at := path; at != "" && at != filepath.Dir(at); at = filepath.Dir(at) {
		var st unix.Statfs_t
		if unix.Statfs(at, &st) != nil {
			continue
		}
		if st.Files > 0 && st.Ffree == 0 {
			return fmt.Sprintf("the file system of %s has none of its %d inodes left:"+
				" remove files there, or make one with more (mkfs -N)", at, st.Files)
		}
		return "make room on the file system of " + at
	}
	return "make room on the node's data disk"
}

// ownerHint names the owner of the file, or of the nearest folder above it that can be examined.
func ownerHint(path string) string {
	me := os.Geteuid()
	for at := path; at != ""; at = filepath.Dir(at) {
		info, err := os.Lstat(at)
		if err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				return fmt.Sprintf("%s is of user %d with mode %04o, this process runs as user %d: %s",
					at, st.Uid, info.Mode().Perm(), me, permit(at, int(st.Uid), me, info.IsDir()))
			}
		}
		if at == filepath.Dir(at) {
			break
		}
	}
	return fmt.Sprintf("this process runs as user %d:"+
		" run it as the user that owns the files, or give them to it (chown -R)", me)
}

// permit returns how the user me gets access to a file of owner.
func permit(at string, owner, me int, folder bool) string {
	switch {
	case owner != me:
		return fmt.Sprintf("run it as user %d, or chown -R %d %s", owner, me, at)
	case folder:
		return "chmod u+rwx " + at + ", unless it is mounted or protected so (mount, lsattr)"
	}
	return "chmod u+rw " + at + ", unless it is mounted or protected so (mount, lsattr)"
}
