// Package hostinfo reads the figures of this host and process from /proc and /sys, or from what macOS and
// Windows have in their place: those that free, df, ulimit and iostat show. A figure that the system does not
// have is 0 or empty: on macOS the speed of links and the counters of disks, on Windows these too. Nodes
// report them in their status, and commands check them before a run.
package hostinfo

import (
	"context"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Host are the figures of a host as one process sees them. What is not known is 0 or empty.
type Host struct {
	Host         string `json:"host"`
	CPUs         int    `json:"cpus"`
	MemoryBytes  int64  `json:"memory_bytes"`
	MemoryFree   int64  `json:"memory_free_bytes"` // available without swapping
	LinkBytesPS  int64  `json:"link_bytes_per_s"`  // of the network interface, each way
	OpenFilesMax int64  `json:"open_files_max"`    // the process's limit
	DiskID       string `json:"disk"`              // the same for all processes on one file system
	DiskFree     int64  `json:"disk_free_bytes"`
}

// Read returns the figures of this host for a process with its files in dir and its network traffic on the
// interface with the address host.
func Read(dir string, host netip.Addr) Host {
	h := Host{CPUs: runtime.GOMAXPROCS(0), LinkBytesPS: link(host)}
	h.Host, _ = os.Hostname()
	h.MemoryBytes, h.MemoryFree = memory()
	h.OpenFilesMax = openFilesMax()
	h.DiskID, h.DiskFree = disk(dir)
	return h
}

// Addresses returns the addresses that a host's name stands for here, none where it has no answer within
// timeout.
func Addresses(ctx context.Context, host string, timeout time.Duration) []netip.Addr {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil
	}
	return addrs
}

// link returns the speed of the interface that has the address, in bytes a second each way.
func link(host netip.Addr) int64 {
	interfaces, err := net.Interfaces()
	if err != nil || !host.IsValid() {
		return 0
	}
	for _, i := range interfaces {
		addrs, _ := i.Addrs() // an interface without any is not the one
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err != nil || p.Addr().WithZone("") != host.Unmap() {
				continue
			}
			b, err := os.ReadFile(filepath.Join("/sys/class/net", i.Name, "speed")) // in Mbit/s
			if err != nil {
				return 0 // such as the loopback interface
			}
			n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
			return max(n, 0) * 1e6 / 8
		}
	}
	return 0
}

// space is what a file system has: bytes free for this user, all its bytes, and free inodes or NoInodeLimit.
type space struct{ free, total, inodes int64 }

// disk returns a name for the file system of dir, the same for all processes that use it, and its free bytes.
func disk(dir string) (id string, free int64) {
	device, err := device(dir)
	if err != nil {
		return "", 0
	}
	boot, err := boot()
	if err != nil {
		return "", 0
	}
	s, _ := spaceOf(dir) // zeros where that is not known
	return boot + "/" + device, s.free
}

// NoInodeLimit is the number of free inodes of a file system that makes inodes on demand. Such a file system
// reports a total of 0.
const NoInodeLimit = math.MaxInt64

// Disk reads the counters of the block device under a folder.
type Disk struct{ path string }

// DiskOf returns the device under dir, which must exist. A file system without a device of its own has no
// counters.
func DiskOf(dir string) Disk {
	if device, err := device(dir); err == nil {
		return Disk{filepath.Join("/sys/dev/block", device, "stat")}
	}
	return Disk{}
}

// Counters returns the bytes read and written, and the time in which the device was busy, since the host
// started; zeros when there are no counters.
func (d Disk) Counters() (read, written int64, busy time.Duration) {
	b, err := os.ReadFile(d.path)
	if err != nil {
		return 0, 0, 0
	}
	f := strings.Fields(string(b))
	// Documentation/block/stat.rst of Linux: sectors of 512 bytes read and written are the third and the
	// seventh field, milliseconds in which requests were queued the tenth.
	if len(f) < 10 {
		return 0, 0, 0
	}
	number := func(i int) int64 { n, _ := strconv.ParseInt(f[i], 10, 64); return n }
	return number(2) * 512, number(6) * 512, time.Duration(number(9)) * time.Millisecond
}
