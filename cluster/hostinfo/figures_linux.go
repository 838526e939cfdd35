package hostinfo

import (
	"bufio"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// resident returns the bytes of this process that are in memory.
func resident(*unix.Rusage) int64 {
	b, _ := os.ReadFile("/proc/self/statm") // in pages, such as "5120 2048 1024 1 0 512 0"
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// memory returns the bytes of RAM, and those available without swapping.
func memory() (total, free int64) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text()) // such as "MemTotal: 16384 kB"
		if len(fields) < 2 {
			continue
		}
		kB, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "MemTotal:":
			total = kB << 10
		case "MemAvailable:":
			free = kB << 10
		}
	}
	return total, free
}

// boot returns an ID of this start of the host.
func boot() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id)), err
}
