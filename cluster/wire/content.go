package wire

import "io"

// Content is a body that can be read in part: all of it, unless Section says otherwise.
type Content interface {
	io.ReadCloser
	Size() int64
	// Section has Read give the n bytes at off, which must be inside, and then end. Only these are fetched.
	Section(off, n int64)
}
