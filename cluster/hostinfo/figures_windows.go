package hostinfo

import (
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

var (
	kernel32             = windows.NewLazySystemDLL("kernel32.dll")
	globalMemoryStatusEx = kernel32.NewProc("GlobalMemoryStatusEx")
	processMemoryInfo    = kernel32.NewProc("K32GetProcessMemoryInfo")
)

// Process returns this process's memory in RAM, its working set, in bytes, and the CPU time that it has used.
func Process() (rss int64, cpu time.Duration) {
	self := windows.CurrentProcess()
	var made, ended, kernel, user windows.Filetime
	if windows.GetProcessTimes(self, &made, &ended, &kernel, &user) == nil {
		cpu = span(kernel) + span(user)
	}
	var use struct { // PROCESS_MEMORY_COUNTERS
		size, faults uint32
		peakWorking  uintptr
		working      uintptr
		_            [6]uintptr
	}
	use.size = uint32(unsafe.Sizeof(use))
	ok, _, _ := processMemoryInfo.Call(uintptr(self), uintptr(unsafe.Pointer(&use)), uintptr(use.size))
	if ok != 0 {
		rss = int64(use.working)
	}
	return rss, cpu
}

// span returns a length of time, which Windows counts in units of 100 ns.
func span(t windows.Filetime) time.Duration {
	return time.Duration(int64(t.HighDateTime)<<32|int64(t.LowDateTime)) * 100
}

// memory returns the bytes of RAM, and those available without swapping.
func memory() (total, free int64) {
	var m struct { // MEMORYSTATUSEX
		size, load  uint32
		total, free uint64
		_           [5]uint64
	}
	m.size = uint32(unsafe.Sizeof(m))
	globalMemoryStatusEx.Call(uintptr(unsafe.Pointer(&m))) // zeros where it fails
	return int64(m.total), int64(m.free)
}

// boot returns the host's name: Windows has no ID of a start, and no node, which others would be compared
// with.
func boot() (string, error) { return os.Hostname() }

// device returns the volume of a folder.
func device(dir string) (string, error) {
	path, err := filepath.Abs(dir)
	if err == nil {
		_, err = os.Stat(path)
	}
	return filepath.VolumeName(path), err
}

// spaceOf returns what the file system of a folder has.
func spaceOf(path string) (space, error) {
	s := space{inodes: NoInodeLimit}
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return s, err
	}
	var free, total uint64
	if err := windows.GetDiskFreeSpaceEx(name, &free, &total, nil); err != nil {
		return s, err
	}
	s.free, s.total = int64(free), int64(total)
	return s, nil
}

// openFilesMax is how many handles a process may have.
func openFilesMax() int64 { return 1 << 24 }

func addressSpaceMax() int64 { return Unlimited }
