package load

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

func mapPages(size int) ([]byte, error) {
	const how = windows.MEM_RESERVE | windows.MEM_COMMIT
	at, err := windows.VirtualAlloc(0, uintptr(size), how, windows.PAGE_READWRITE)
	if err != nil {
		return nil, err
	}
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&at)), size), nil // outside of the Go heap
}

func unmapPages(mapped []byte) error {
	return windows.VirtualFree(address(mapped), 0, windows.MEM_RELEASE)
}

// giveBack gives the memory of pages back to the system. They stay mapped, with any content.
func giveBack(pages []byte) error {
	size := uintptr(len(pages))
	if err := windows.VirtualFree(address(pages), size, windows.MEM_DECOMMIT); err != nil {
		return err
	}
	_, err := windows.VirtualAlloc(address(pages), size, windows.MEM_COMMIT, windows.PAGE_READWRITE)
	return err
}

func address(pages []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(pages))) }
