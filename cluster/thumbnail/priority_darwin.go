package thumbnail

import "golang.org/x/sys/unix"

// Of sys/resource.h of macOS: who 0 is the calling thread.
const (
	darwinThread     = 3      // PRIO_DARWIN_THREAD
	darwinBackground = 0x1000 // PRIO_DARWIN_BG
)

// lowerPriority puts the calling thread into the background, as macOS calls its lowest priority.
func lowerPriority() { unix.Setpriority(darwinThread, 0, darwinBackground) }
