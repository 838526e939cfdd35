package store

import (
	"errors"

	"golang.org/x/sys/unix"
)

// directFlag is 0, since macOS has no direct I/O for Openat: all files go through its cache.
const directFlag = 0

// allocate reserves room for the whole file, so that a full disk is an error now. Its length stays.
func (o osFile) allocate(size int64) error {
	room := unix.Fstore_t{Flags: unix.F_ALLOCATEALL, Posmode: unix.F_PEOFPOSMODE, Length: size}
	err := restart(func() error { return unix.FcntlFstore(uintptr(o), unix.F_PREALLOCATE, &room) })
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // Create has checked the free bytes
	}
	return err
}

// writeBack does nothing: macOS cannot be asked to start that. It only starts early what the sync waits for.
func (o osFile) writeBack(int64, int64) error { return nil }

func (o osFile) endDirect() error { return nil }

// sync has the disk write its own cache too, which fsync(2) of macOS leaves to it. A file system that is not
// on a disk of this host, such as SMB, knows fsync only.
func (o osFile) sync() error {
	err := restart(func() error {
		_, err := unix.FcntlInt(uintptr(o), unix.F_FULLFSYNC, 0)
		return err
	})
	if errors.Is(err, unix.ENOTSUP) {
		return restart(func() error { return unix.Fsync(int(o)) })
	}
	return err
}

// dropCache has reads of the file leave nothing in the cache. What is there already may still be read from
// it: macOS has no way to drop it that spares what is yet to be written.
func dropCache(fd int) error {
	return restart(func() error {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_NOCACHE, 1)
		return err
	})
}

func preferHuge([]byte) {}
