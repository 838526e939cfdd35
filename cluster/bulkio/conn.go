// Package bulkio spares connections system calls and wake-ups, of which images would take many: the kernel
// wakes a reader for a few packets, and crypto/tls reads and writes a record of 16 KiB at a time. It is
// between a network connection and HTTP, or crypto/tls.
package bulkio

import (
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Conn is a connection with few and large reads, and writes where they are asked for. Its Read is for one
// goroutine at a time, the other methods for all.
type Conn struct {
	net.Conn
	raw    syscall.RawConn // nil: there is none
	secure bool            // crypto/tls reads from it

	expected atomic.Int64 // see Expect
	within   atomic.Int64 // likewise, ns
	flow     flow         // of what is expected
	low      *time.Timer  // lowers the mark; nil: there was no need yet
	mu       sync.Mutex   // held to set the mark
	mark     int          // bytes that must have come before the kernel wakes Read

	more bool // the last read got as much as it asked for
	buf  *[bufferBytes]byte
	rest []byte // of buf, not read yet

	out output
}

// NewConn returns a connection that reads from another one, for HTTP.
func NewConn(conn net.Conn) *Conn {
	c := &Conn{Conn: conn, mark: 1}
	if s, ok := conn.(syscall.Conn); ok {
		c.raw, _ = s.SyscallConn()
	}
	return c
}

// NewSecureConn returns a connection that reads from another one many records at once, for tls.Server or
// tls.Client. It holds memory only while there is something in it.
func NewSecureConn(conn net.Conn) *Conn {
	c := NewConn(conn)
	c.secure = true
	return c
}

const (
	// markBytesMin is the least that it is worth waiting for.
	markBytesMin = 64 << 10
	// markBytesMax bounds what a socket holds for that.
	markBytesMax = 1 << 20
	// heldBytesMax is how much of a body at most crypto/tls has already, in a record that is not whole, when
	// it reads on.
	heldBytesMax = 2 * recordBytes
)

// Expect says that at least n more bytes of a body are still to be read from here, or through crypto/tls. The
// next read may wait so long for many of them at once, and where bytes come fast enough it does. Where fewer
// come after all, nothing but that time is lost.
func (c *Conn) Expect(n int64, within time.Duration) {
	if c == nil {
		return
	}
	if c.secure {
		n -= heldBytesMax
	}
	c.within.Store(int64(within))
	c.expected.Store(max(n, 0))
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if len(c.rest) > 0 {
		return c.take(p), nil
	}
	if n := c.expected.Swap(0); n > 0 && c.raw != nil {
		return c.readExpected(p, n)
	}
	c.flow.end()
	c.setMark(1)
	return c.read(p)
}

// read reads what has come, or what comes first.
func (c *Conn) read(p []byte) (int, error) {
	if c.secure && c.more && c.raw != nil && len(p) < bufferBytes {
		if c.fetch(); len(c.rest) > 0 {
			return c.take(p), nil
		}
	}
	n, err := c.Conn.Read(p)
	c.more = n == len(p)
	return n, err
}

// take returns what is held already.
func (c *Conn) take(p []byte) int {
	n := copy(p, c.rest)
	if c.rest = c.rest[n:]; len(c.rest) == 0 {
		buffers.Put(c.buf)
		c.buf = nil
	}
	return n
}

// flow measures how a body comes.
type flow struct {
	since time.Time // when its bytes began to come; zero: there is none
	bytes int64
	rate  float64 // bytes a second, of this body or one before
	// Of the first reads of this body that did not wait for more than there was:
	tried, got int
}

const (
	flowMin = 5 * time.Millisecond // for a measurement
	flowMax = 50 * time.Millisecond
	// tries is how many reads show whether they are small: a sender that is as fast as the reader, such as
	// one on the same host, fills the socket meanwhile, and to wait would only cost time.
	tries      = 4
	smallBytes = 96 << 10
)

// begin is called before bytes are read.
func (f *flow) begin(now time.Time) {
	took := now.Sub(f.since)
	if f.since.IsZero() {
		f.tried, f.got = 0, 0
	} else if took >= flowMin {
		f.rate = float64(f.bytes) / took.Seconds()
	}
	if f.since.IsZero() || took >= flowMax {
		f.since, f.bytes = now, 0
	}
}

// end is called when there is no more of a body.
func (f *flow) end() { f.since = time.Time{} }

// try is what a read got that had room for so much.
func (f *flow) try(n, room int) {
	if room >= smallBytes && f.tried < tries {
		f.tried++
		f.got += n
	}
}

// small reports whether reads get little each.
func (f *flow) small() bool { return f.tried == tries && f.got < tries*smallBytes }

// in returns how many bytes should come in a time.
func (f *flow) in(d time.Duration) int64 { return int64(f.rate * d.Seconds()) }
