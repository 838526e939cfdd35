package api

import (
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// countedWriter counts the bytes of a body on its way out, and measures how long that takes.
type countedWriter struct {
	http.ResponseWriter
	count *atomic.Int64
	took  time.Duration
}

func (c *countedWriter) Write(p []byte) (int, error) {
	began := time.Now()
	n, err := c.ResponseWriter.Write(p)
	c.took += time.Since(began)
	c.count.Add(int64(n))
	return n, err
}

// serveBufferBytes is the unit of the way out of ciphertext. Every reader of it holds one, however slow,
// as one of plaintext holds a segment.
const serveBufferBytes = 128 << 10

var serveBuffers = sync.Pool{New: func() any { b := make([]byte, serveBufferBytes); return &b }}

// ReadFrom copies as io.Copy does, through a buffer that is used again.
func (c *countedWriter) ReadFrom(r io.Reader) (int64, error) {
	buf := serveBuffers.Get().(*[]byte)
	defer serveBuffers.Put(buf)
	defer clear(*buf) // it was plaintext
	return io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{r}, *buf)
}
