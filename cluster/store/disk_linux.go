package store

import (
	"errors"

	"golang.org/x/sys/unix"
)

// directFlag is the flag of direct I/O for Openat.
const directFlag = unix.O_DIRECT

// allocate reserves the file's blocks and sets its length, so that direct writes never extend it.
func (o osFile) allocate(size int64) error {
	err := restart(func() error { return unix.Fallocate(int(o), 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil // Create has checked the free bytes
	}
	return err
}

func (o osFile) writeBack(off, n int64) error {
	err := restart(func() error {
		return unix.SyncFileRange(int(o), off, n, unix.SYNC_FILE_RANGE_WRITE)
	})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // it only starts early what the fsync waits for
	}
	return err
}

func (o osFile) endDirect() error {
	flags, err := unix.FcntlInt(uintptr(o), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	_, err = unix.FcntlInt(uintptr(o), unix.F_SETFL, flags&^unix.O_DIRECT)
	return err
}

func (o osFile) sync() error { return restart(func() error { return unix.Fsync(int(o)) }) }

// dropCache has the kernel drop a file's clean pages from its page cache: after a failed write they may
// hold what the disk never got. Dirty pages stay.
func dropCache(fd int) error {
	return restart(func() error { return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED) })
}

// preferHuge asks for a huge page. A kernel without them does as well.
func preferHuge(page []byte) { _ = unix.Madvise(page, unix.MADV_HUGEPAGE) }
