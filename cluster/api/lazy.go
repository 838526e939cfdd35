package api

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// lazyWriter sends the header with the first byte of the body, so that until then the response can
// still become an error. It gives up on a client that takes nothing for idle.
type lazyWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	idle    time.Duration
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
	l.control.SetWriteDeadline(time.Now().Add(l.idle))
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
