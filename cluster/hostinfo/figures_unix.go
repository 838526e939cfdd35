//go:build unix

package hostinfo

import (
	"fmt"
	"math"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process returns this process's resident memory in bytes, and the CPU time that it has used.
func Process() (rss int64, cpu time.Duration) {
	var use unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &use) == nil {
		cpu = time.Duration(use.Utime.Nano() + use.Stime.Nano())
	}
	return resident(&use), cpu
}

// FreeInodes returns the number of free inodes of a file system.
func FreeInodes(fs *unix.Statfs_t) int64 {
	if fs.Files == 0 {
		return NoInodeLimit
	}
	return int64(min(fs.Ffree, NoInodeLimit))
}

// spaceOf returns what the file system of a file or folder has.
func spaceOf(path string) (space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return space{}, err
	}
	block := int64(st.Bsize)
	return space{int64(st.Bavail) * block, int64(st.Blocks) * block, FreeInodes(&st)}, nil
}

// device returns the number of the device of a folder, as in /sys/dev/block.
func device(dir string) (string, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	dev := uint64(info.Sys().(*syscall.Stat_t).Dev)
	return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)), nil
}

// openFilesMax is how many files this process may have open.
func openFilesMax() int64 { return rlimit(unix.RLIMIT_NOFILE) }

// addressSpaceMax is how many bytes of address space this process may have.
func addressSpaceMax() int64 { return rlimit(unix.RLIMIT_AS) }

func rlimit(which int) int64 {
	var r unix.Rlimit
	if unix.Getrlimit(which, &r) != nil {
		return Unlimited
	}
	return int64(min(r.Cur, math.MaxInt64))
}
