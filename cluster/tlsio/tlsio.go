// Package tlsio spares TLS connections system calls: crypto/tls reads and writes a record of 16 KiB at a
// time, and images have many records. It is between a network connection and crypto/tls.
package tlsio

import (
	"crypto/tls"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// bufferBytes is how much is read or written at once.
const bufferBytes = 128 << 10

var buffers = sync.Pool{New: func() any { return new([bufferBytes]byte) }}

// NewReader returns a connection that reads from another one many records at once where they have come, for
// tls.Server or tls.Client. It holds memory only while there is something in it.
func NewReader(conn net.Conn) net.Conn {
	r := &reader{Conn: conn}
	if c, ok := conn.(syscall.Conn); ok {
		r.raw, _ = c.SyscallConn()
	}
	return r
}

// reader is for one goroutine that reads.
type reader struct {
	net.Conn
	raw  syscall.RawConn // nil: there is none
	more bool            // the last read got as much as it asked for
	buf  *[bufferBytes]byte
	rest []byte // of buf, not read yet
}

// Read implements net.Conn.
func (r *reader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 && r.more && r.raw != nil && len(p) < bufferBytes {
		r.fetch()
	}
	if len(r.rest) == 0 {
		n, err := r.Conn.Read(p)
		r.more = n == len(p)
		return n, err
	}
	n := copy(p, r.rest)
	if r.rest = r.rest[n:]; len(r.rest) == 0 {
		buffers.Put(r.buf)
		r.buf = nil
	}
	return n, nil
}

// fetch reads what has come, without waiting: nobody holds a buffer for a sender that is slow. The end and
// the errors are left to the next Read.
func (r *reader) fetch() {
	buf := buffers.Get().(*[bufferBytes]byte)
	n := 0
	err := r.raw.Read(func(fd uintptr) bool {
		n, _ = unix.Read(int(fd), buf[:])
		return true
	})
	if err != nil || n <= 0 {
		buffers.Put(buf)
		r.more = false
		return
	}
	r.buf, r.rest, r.more = buf, buf[:n], n == len(buf)
}

// Conn is a TLS connection that writes the records of one Write together. Its Write is for one goroutine at a
// time.
type Conn struct {
	*tls.Conn
	out *writer
}

// Client returns the client's end of a TLS connection over conn.
func Client(conn net.Conn, config *tls.Config) *Conn {
	out := &writer{Conn: NewReader(conn)}
	return &Conn{tls.Client(out, config), out}
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	if len(p) < recordBytes {
		return c.Conn.Write(p)
	}
	c.out.hold()
	n, err := c.Conn.Write(p)
	if failed := c.out.release(); err == nil {
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
