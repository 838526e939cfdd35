//go:build !linux

package loopfs

import "testing"

// Disk is an ext4, mounted at Dir.
type Disk struct{ Dir string }

// New skips t.
func New(t testing.TB, _ string, _ int64, _ ...string) *Disk {
	t.Helper()
	t.Skip("needs Linux, for a loop device with ext4")
	return nil
}

// Cut does nothing here.
func (d *Disk) Cut() error { return nil }

// LoseBlocks does nothing here.
func (d *Disk) LoseBlocks(string) error { return nil }

// FirstBlock does nothing here.
func FirstBlock(string) (int64, error) { return 0, nil }

// Unmount does nothing here.
func (d *Disk) Unmount() error { return nil }

// Remount does nothing here.
func (d *Disk) Remount(testing.TB) {}
