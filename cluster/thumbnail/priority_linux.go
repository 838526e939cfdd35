package thumbnail

import "golang.org/x/sys/unix"

// lowerPriority gives the calling thread the lowest priority.
func lowerPriority() { unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 19) }
