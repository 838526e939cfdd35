package hostinfo

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Unlimited is a limit that is not set.
const Unlimited = math.MaxInt64

// Limits are what this process may have at most. What is not limited, or not known, is Unlimited.
type Limits struct {
	OpenFiles    int64
	AddressSpace int64 // bytes
	Memory       int64 // bytes in RAM: of the control groups, or what the machine has
	MemoryFree   int64 // bytes of the machine that can be had without swapping
	Bytes        int64 // free on the file system of a folder
	Inodes       int64 // free there; NoInodeLimit
	Place        string
}

// LimitsOf returns the limits of this process, with its files in dir, or in the nearest folder above it
// that is there.
func LimitsOf(dir string) (Limits, error) {
	l := Limits{OpenFiles: rlimit(unix.RLIMIT_NOFILE), AddressSpace: rlimit(unix.RLIMIT_AS), Memory: Unlimited, MemoryFree: Unlimited}
	if total, free := memory(); total > 0 {
		l.Memory, l.MemoryFree = total, free
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err == nil {
		l.Memory = min(l.Memory, groupMemory("/sys/fs/cgroup", string(groups)))
	}
	path, err := filepath.Abs(dir)
	if err != nil {
		return l, err
	}
	var st unix.Statfs_t
	for err = unix.Statfs(path, &st); errors.Is(err, fs.ErrNotExist) && path != filepath.Dir(path); err = unix.Statfs(path, &st) {
		path = filepath.Dir(path)
	}
	if err != nil {
		return l, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	l.Bytes, l.Inodes, l.Place = int64(st.Bavail)*int64(st.Bsize), FreeInodes(&st), path
	return l, nil
}

func rlimit(which int) int64 {
	var r unix.Rlimit
	if unix.Getrlimit(which, &r) != nil {
		return Unlimited
	}
	return int64(min(r.Cur, Unlimited))
}

// groupMemory returns the least memory limit of a process's control groups and of those above them; groups
// is its /proc/PID/cgroup, as of man 7 cgroups.
func groupMemory(root, groups string) int64 {
	least := int64(Unlimited)
	for line := range strings.Lines(groups) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3) // such as 0::/system.slice, or 4:memory:/docker/1
		if len(parts) < 3 {
			continue
		}
		top, name := root, "memory.max"
		switch {
		case parts[1] == "memory":
			top, name = filepath.Join(root, "memory"), "memory.limit_in_bytes"
		case parts[0] != "0":
			continue
		}
		for at := filepath.Join("/", parts[2]); ; at = filepath.Dir(at) {
			b, err := os.ReadFile(filepath.Join(top, at, name)) // missing: not limited, or of another namespace
			if n, bad := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && bad == nil {
				least = min(least, n)
			}
			if at == "/" {
				break
			}
		}
	}
	return least
}
