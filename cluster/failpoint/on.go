//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Enabled reports whether this program was built with failpoints.
const Enabled = true

var (
	mu    sync.Mutex
	armed string
	left  int
)

func init() {
	name, count, many := strings.Cut(os.Getenv("IMGCLUSTER_FAILPOINT"), ":")
	n := 1
	if many {
		var err error
		if n, err = strconv.Atoi(count); err != nil || n < 1 {
			panic(fmt.Sprintf("IMGCLUSTER_FAILPOINT: %q is not a number from 1", count))
		}
	}
	Arm(name, n)
}

// Here is the failpoint of this name. It does not return when it is the armed one and its count is reached.
// It panics when the list has no such name.
func Here(name string) {
	mu.Lock() // held to the end: no goroutine may pass a failpoint once the process is to die
	defer mu.Unlock()
	if !slices.Contains(names, name) {
		panic("failpoint " + name + " is not in the list")
	}
	if name != armed {
		return
	}
	if left--; left > 0 {
		return
	}
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// Arm kills the process when it reaches the failpoint name for the n-th time from now on. An empty name
// disarms.
func Arm(name string, n int) {
	mu.Lock()
	defer mu.Unlock()
	if name != "" && !slices.Contains(names, name) {
		panic("no failpoint is named " + name)
	}
	armed = name
	left = n
}
