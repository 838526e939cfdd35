package modes

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// forbidCoreFiles keeps plaintext and keys out of core files, and other processes of this user, such as
// debuggers, from this one.
func forbidCoreFiles() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	if err := unix.PtraceDenyAttach(); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	return nil
}
