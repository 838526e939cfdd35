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

// Enabled tells whether this program was built with failpoints.
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

// Here is a place at which the process can be told to die.
func Here(name string) {
	mu.Lock() // held to the end: nothing may get past a place that is deadly
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

// Arm makes the process die when it comes to a place for the n-th time from now on; an empty name
// disarms it.
func Arm(name string, n int) {
	mu.Lock()
	defer mu.Unlock()
	if name != "" && !slices.Contains(names, name) {
		panic("no failpoint is named " + name)
	}
	armed, left = name, n
}
