package ingest

import "golang.org/x/sys/unix"

// keepOutOfCore has the kernel leave memory out of core files.
func keepOutOfCore(mem []byte) error { return unix.Madvise(mem, unix.MADV_DONTDUMP) }
