package modes

import (
	"os"
	"testing"
)

// unreadBytes is the request for how many bytes of a pipe are not read yet, FIONREAD of sys/filio.h.
const unreadBytes = 0x4004667f

// terminal would return the two ends of a pseudo terminal, which macOS opens by functions of its C library.
func terminal(t *testing.T) (user, program *os.File) {
	t.Skip("pseudo terminals are opened on Linux only")
	return nil, nil
}
