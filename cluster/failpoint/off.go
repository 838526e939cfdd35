//go:build !failpoints

package failpoint

// Enabled reports whether this program was built with failpoints.
const Enabled = false

// Here is the failpoint of this name.
func Here(string) {}

// Arm kills the process when it reaches the failpoint name for the n-th time from now on. An empty name
// disarms.
func Arm(string, int) {}
