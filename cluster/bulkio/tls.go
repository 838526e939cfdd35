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
	under *Conn
}

// Client returns the client's end of a TLS connection over conn. The handshake comes first.
func Client(conn net.Conn, config *tls.Config) *TLS {
	under := NewSecureConn(conn)
	return &TLS{tls.Client(under, config), under}
}

// Write implements net.Conn.
func (t *TLS) Write(p []byte) (int, error) {
	if len(p) < recordBytes {
		return t.Conn.Write(p)
	}
	t.under.Hold()
	n, err := t.Conn.Write(p)
	if failed := t.under.Release(); err == nil {
		err = failed
	}
	return n, err
}

// recordBytes is the most plaintext of one record.
const recordBytes = 16 << 10

// output holds what is written, from Hold to Release.
type output struct {
	mu   sync.Mutex
	buf  *[bufferBytes]byte // nil: nothing is held
	held int                // bytes
	err  error              // of a write of what was held: the next ones cannot follow it
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	if o.buf == nil {
		return c.Conn.Write(p)
	}
	if o.held+len(p) > len(o.buf) {
		if err := c.flush(); err != nil {
			return 0, err
		}
	}
	if len(p) > len(o.buf) {
		return c.Conn.Write(p)
	}
	o.held += copy(o.buf[o.held:], p)
	return len(p), nil
}

// Hold has what crypto/tls writes wait for Release, which must follow, or for some more. Without crypto/tls
// it does nothing: HTTP writes bodies as it is given them.
func (c *Conn) Hold() {
	if c == nil || !c.secure {
		return
	}
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.buf = buffers.Get().(*[bufferBytes]byte)
}

// Release writes what is held since Hold.
func (c *Conn) Release() error {
	if c == nil || !c.secure {
		return nil
	}
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	err := c.flush()
	buffers.Put(c.out.buf)
	c.out.buf = nil
	return err
}

// flush writes what is held. The caller holds the output's mu.
func (c *Conn) flush() error {
	n := c.out.held
	c.out.held = 0
	if n == 0 {
		return nil
	}
	_, c.out.err = c.Conn.Write(c.out.buf[:n])
	return c.out.err
}
