//go:build !race

package bulkio

// quietBytesMax is the most that is read or written at once without Go's monitor thread: that takes the
// kernel some microseconds.
const quietBytesMax = 32 << 10
