package hostinfo

import (
	"cmp"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Unlimited is a limit that is not set.
const Unlimited = math.MaxInt64

// Limits are the limits of this process. What is not limited, or not known, is Unlimited.
type Limits struct {
	OpenFiles    int64
	AddressSpace int64  // bytes
	Memory       int64  // bytes of RAM: of the control groups or of the host, whichever is less
	MemoryFree   int64  // bytes of RAM of the host available without swapping
	Bytes        int64  // free on the file system of Place
	BytesTotal   int64  // of that file system
	Inodes       int64  // free there, or NoInodeLimit
	Place        string // folder
}

// LimitsOf returns the limits of this process with its files in dir, or in the nearest folder above it that
// exists.
func LimitsOf(dir string) (Limits, error) {
	l := Limits{
		OpenFiles:    openFilesMax(),
		AddressSpace: addressSpaceMax(),
		Memory:       Unlimited,
		MemoryFree:   Unlimited,
	}
	if total, free := memory(); total > 0 {
		l.Memory = total
		l.MemoryFree = cmp.Or(free, Unlimited)
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err == nil {
		l.Memory = min(l.Memory, groupMemory("/sys/fs/cgroup", string(groups)))
	}
	path, err := filepath.Abs(dir)
	if err != nil {
		return l, err
	}
	s, err := spaceOf(path)
	for errors.Is(err, fs.ErrNotExist) && path != filepath.Dir(path) {
		path = filepath.Dir(path)
		s, err = spaceOf(path)
	}
	if err != nil {
		return l, &fs.PathError{Op: "statfs", Path: path, Err: err}
	}
	l.Bytes = s.free
	l.BytesTotal = s.total
	l.Inodes = s.inodes
	l.Place = path
	return l, nil
}

// groupMemory returns the smallest memory limit of a process's control groups and of those above them, in
// both versions of control groups. groups is the process's /proc/PID/cgroup; see cgroups(7).
func groupMemory(root, groups string) int64 {
	least := int64(Unlimited)
	for line := range strings.Lines(groups) {
		// Such as 0::/system.slice, or 4:memory:/docker/1.
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(parts) < 3:
		case parts[1] == "memory":
			least = min(least, leastAbove(filepath.Join(root, "memory"), parts[2], "memory.limit_in_bytes"))
		case parts[0] == "0":
			least = min(least, leastAbove(root, parts[2], "memory.max"))
		}
	}
	return least
}

// leastAbove returns the smallest number in the files of this name in the folders from group up to root. A
// missing file, or one without a number, is no limit.
func leastAbove(root, group, name string) int64 {
	least := int64(Unlimited)
	for at := filepath.Join("/", group); ; at = filepath.Dir(at) {
		b, err := os.ReadFile(filepath.Join(root, at, name))
		if n, bad := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && bad == nil {
			least = min(least, n)
		}
		if at == "/" {
			return least
		}
	}
}
