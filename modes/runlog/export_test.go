package runlog

import "io"

// For the tests: the bounds, the kind of error that they give, and a reader of compressed data with another
// limit.
const (
	BytesMax      = bytesMax
	CountMax      = countMax
	ErrorBytesMax = errorBytesMax
	LineBytesMax  = lineBytesMax
)

var ErrRange = errRange

func NewGunzip(packed io.Reader, left int64) io.Reader { return &gunzip{packed: packed, left: left} }
