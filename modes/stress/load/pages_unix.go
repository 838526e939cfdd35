//go:build unix

package load

import "golang.org/x/sys/unix"

func mapPages(size int) ([]byte, error) {
	return unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
}

func unmapPages(mapped []byte) error { return unix.Munmap(mapped) }

// giveBack gives the memory of pages back to the system. They stay mapped, with any content. macOS takes them
// when it needs memory, and counts them as this process's until then.
func giveBack(pages []byte) error { return unix.Madvise(pages, unix.MADV_DONTNEED) }
