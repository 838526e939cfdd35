package durable

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCreateOnFullDisk: when the disk is full the old file stays and nothing else is left.
func TestCreateOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("no file system to fill: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, 0) })
	path := filepath.Join(dir, "file")
	must(t, write(t, path, "old"))
	if err := write(t, path, strings.Repeat("new", 1<<16)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	b, err := os.ReadFile(path)
	if expectOnly(t, dir, "file"); err != nil || string(b) != "old" {
		t.Errorf("the file is %q, %v", b, err)
	}
}
