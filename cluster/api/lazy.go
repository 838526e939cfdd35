package api

import (
	"io"
	"net/http"
	"sync"
	"sync/atomic"
)

// lazyWriter sends the header with the first byte of the body, so that until then the response can
// still become an error.
type lazyWriter struct {
	http.ResponseWriter
	count   *atomic.Int64
	status  int
	started bool
}

func (l *lazyWriter) WriteHeader(status int) { l.status = status }

func (l *lazyWriter) flushHeader() {
	if !l.started && l.status != 0 {
		l.ResponseWriter.WriteHeader(l.status)
	}
	l.started = true
}

func (l *lazyWriter) Write(p []byte) (int, error) {
	l.flushHeader()
	n, err := l.ResponseWriter.Write(p)
	l.count.Add(int64(n))
	return n, err
}

// serveBufferBytes is the unit of a body's way out. Every reader holds one, however slow it is.
const serveBufferBytes = 32 << 10

var serveBuffers = sync.Pool{New: func() any { b := make([]byte, serveBufferBytes); return &b }}

// ReadFrom copies as io.Copy does, through a buffer that is used again.
func (l *lazyWriter) ReadFrom(r io.Reader) (int64, error) {
	buf := serveBuffers.Get().(*[]byte)
	defer serveBuffers.Put(buf)
	defer clear(*buf) // it was plaintext
	return io.CopyBuffer(struct{ io.Writer }{l}, struct{ io.Reader }{r}, *buf)
}
