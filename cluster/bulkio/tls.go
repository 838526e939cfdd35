package bulkio

import (
	"crypto/tls"
	"net"
	"sync"
)

// bufferBytes is how much is read or written at once.
const bufferBytes = 128 << 10

var buffers = sync.Pool{New: func() any { return new([bufferBytes]byte) }}

// TLS is a TLS connection that reads many records at once, and writes the records of one Write together. Its
// Read and its Write are for one goroutine at a time each.
type TLS struct {
	*tls.Conn
	out *writer
}

// Client returns the client's end of a TLS connection over conn.
func Client(conn net.Conn, config *tls.Config) *TLS {
	out := &writer{Conn: NewSecureConn(conn)}
	return &TLS{tls.Client(out, config), out}
}

// Write implements net.Conn.
func (t *TLS) Write(p []byte) (int, error) {
	if len(p) < recordBytes {
		return t.Conn.Write(p)
	}
	t.out.hold()
	n, err := t.Conn.Write(p)
	if failed := t.out.release(); err == nil {
		err = failed
	}
	return n, err
}

// recordBytes is the most plaintext of one record.
const recordBytes = 16 << 10

// writer holds what is written, from hold to release.
type writer struct {
	net.Conn
	mu   sync.Mutex
	buf  *[bufferBytes]byte // nil: nothing is held
	held int                // bytes
}

// Write implements net.Conn.
func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.buf == nil {
		return w.Conn.Write(p)
	}
	if w.held+len(p) > len(w.buf) {
		if err := w.flush(); err != nil {
			return 0, err
		}
	}
	if len(p) > len(w.buf) {
		return w.Conn.Write(p)
	}
	w.held += copy(w.buf[w.held:], p)
	return len(p), nil
}

func (w *writer) hold() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = buffers.Get().(*[bufferBytes]byte)
}

func (w *writer) release() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.flush()
	buffers.Put(w.buf)
	w.buf = nil
	return err
}

// flush writes what is held. The caller holds mu.
func (w *writer) flush() error {
	n := w.held
	w.held = 0
	if n == 0 {
		return nil
	}
	_, err := w.Conn.Write(w.buf[:n])
	return err
}
