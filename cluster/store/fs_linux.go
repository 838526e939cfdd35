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
		return nil // then the check of free bytes has to do
	}
	return err
}

func (o osFile) writeBack(off, n int64) error {
	err := restart(func() error {
		return unix.SyncFileRange(int(o.f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
	})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // it is only a head start; the fsync counts
	}
	return err
}

// dropCache has the kernel forget what it holds of a file in memory, which after a failed write may be
// what the disk never got. What waits to be written stays.
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
