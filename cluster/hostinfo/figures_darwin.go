package hostinfo

import (
	"os"

	"golang.org/x/sys/unix"
)

// resident returns the most bytes of this process that were in memory at once: what is there now, macOS tells
// only programs in C.
func resident(use *unix.Rusage) int64 { return use.Maxrss }

// memory returns the bytes of RAM, and those available without swapping: free ones, and the file cache.
func memory() (total, free int64) {
	bytes, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return 0, 0
	}
	unused, err1 := unix.SysctlUint32("vm.page_free_count")
	cache, err2 := unix.SysctlUint32("vm.page_pageable_external_count")
	if err1 != nil || err2 != nil {
		return int64(bytes), 0
	}
	return int64(bytes), (int64(unused) + int64(cache)) * int64(os.Getpagesize())
}

// boot returns an ID of this start of the host.
func boot() (string, error) { return unix.Sysctl("kern.bootsessionuuid") }
