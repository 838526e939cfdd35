package modes

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// forbidCoreFiles keeps plaintext and keys out of core files. The limit alone would not do where the kernel
// pipes these to a program (core(5)); a process that is not dumpable cannot be traced by other processes of
// its user either.
func forbidCoreFiles() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	return nil
}
