package api

import (
	"io"
	"net/http"
	"sync/atomic"
)

// lazyWriter sends the header with the first byte of the body, so that until then the response can
// still become an error. Each write gives the client more time.
type lazyWriter struct {
	http.ResponseWriter
	extend  func()
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
	l.extend()
	n, err := l.ResponseWriter.Write(p)
	l.count.Add(int64(n))
	return n, err
}

// serveBufferBytes is the unit of a body's way out.
const serveBufferBytes = 256 << 10

// ReadFrom copies in larger steps than io.Copy would.
func (l *lazyWriter) ReadFrom(r io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{l}, struct{ io.Reader }{r}, make([]byte, serveBufferBytes))
}
