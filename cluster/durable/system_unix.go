//go:build unix

package durable

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// SyncDir fsyncs dir, which makes the names in it durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Resemble sets the mode of f to that of another file and, as far as this user may, its owner and group.
func Resemble(f *os.File, other fs.FileInfo) error {
	if st, ok := other.Sys().(*syscall.Stat_t); ok {
		if f.Chown(int(st.Uid), int(st.Gid)) != nil {
			f.Chown(-1, int(st.Gid)) // works for the groups of this user
		}
	}
	return f.Chmod(other.Mode().Perm())
}
