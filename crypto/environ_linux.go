package crypto

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Fields of /proc/self/stat (proc_pid_stat(5)), counted from the one after the command.
const (
	statEnvStart = 50 - 3
	statEnvEnd   = 51 - 3
)

// environBytesMax bounds the environment that is searched: what the kernel gives a process, 6 MiB.
const environBytesMax = 6 << 20

// wipeEnviron overwrites the value of a variable with zeros where the kernel put it at the start of the
// process: that is what /proc/PID/environ shows, whatever the process has unset. The environment is outside
// of the Go heap, so the kernel writes to it.
func wipeEnviron(name string) error {
	fail := func(err error) error { return fmt.Errorf("wipe %s in /proc/self/environ: %w", name, err) }
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return fail(err)
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) <= statEnvEnd {
		return fail(fmt.Errorf("/proc/self/stat has %d fields", len(fields)))
	}
	start, err1 := strconv.ParseUint(string(fields[statEnvStart]), 10, 63)
	end, err2 := strconv.ParseUint(string(fields[statEnvEnd]), 10, 63)
	if err1 != nil || err2 != nil || start == 0 || end <= start || end-start > environBytesMax {
		return fail(fmt.Errorf("the environment is at %s to %s", fields[statEnvStart], fields[statEnvEnd]))
	}
	environ := make([]byte, end-start)
	defer clear(environ)
	pid := os.Getpid()
	if _, err := unix.ProcessVMReadv(pid, local(environ), remote(start, len(environ)), 0); err != nil {
		return fail(err)
	}
	prefix := []byte(name + "=")
	at := start
	for variable := range bytes.SplitSeq(environ, []byte{0}) {
		if value, ok := bytes.CutPrefix(variable, prefix); ok && len(value) > 0 {
			zeros := make([]byte, len(value))
			_, err := unix.ProcessVMWritev(pid, local(zeros), remote(at+uint64(len(prefix)), len(zeros)), 0)
			if err != nil {
				return fail(err)
			}
		}
		at += uint64(len(variable)) + 1
	}
	return nil
}

func local(b []byte) []unix.Iovec {
	v := unix.Iovec{Base: &b[0]}
	v.SetLen(len(b))
	return []unix.Iovec{v}
}

func remote(at uint64, n int) []unix.RemoteIovec {
	return []unix.RemoteIovec{{Base: uintptr(at), Len: n}}
}
