package store

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

const directFlag = unix.O_DIRECT

// allocate reserves the file's blocks and sets its length, so that direct writes never extend it.
func (o osFile) allocate(size int64) error {
	err := restart(func() error { return unix.Fallocate(int(o.f.Fd()), 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil // Create has checked the free bytes
	}
	return err
}

func (o osFile) writeBack(off, n int64) error {
	err := restart(func() error {
		return unix.SyncFileRange(int(o.f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
	})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // it only starts early what the fsync waits for
	}
	return err
}

// dropCache has the kernel drop a file's clean pages from its page cache: after a failed write they may
// hold what the disk never got. Dirty pages stay.
func dropCache(f *os.File) error {
	return restart(func() error { return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) })
}

func (o osFile) endDirect() error {
	flags, err := unix.FcntlInt(o.f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	_, err = unix.FcntlInt(o.f.Fd(), unix.F_SETFL, flags&^unix.O_DIRECT)
	return err
}
