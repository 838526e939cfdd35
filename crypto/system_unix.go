//go:build unix

package crypto

import (
	"io/fs"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// readOnly is the flag of a read-only mount, ST_RDONLY of Linux and MNT_RDONLY of macOS.
const readOnly = 1

// private reports whether a key file is its owner's alone. Of root's the group may read, as OpenSSL's keys in
// PostgreSQL: that is how a container gets a secret that its user, who is not root, can read. For root
// itself this holds only where nobody could have chosen another mode, on a read-only mount.
func private(f *os.File, info fs.FileInfo) bool {
	mode := info.Mode().Perm()
	if mode&0o077 == 0 {
		return true
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid != 0 || mode&0o037 != 0 {
		return false
	}
	var disk unix.Statfs_t
	return os.Geteuid() != 0 || unix.Fstatfs(int(f.Fd()), &disk) == nil && disk.Flags&readOnly != 0
}

// killWithChildren has a command that is cancelled end with all processes that it has started.
func killWithChildren(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
