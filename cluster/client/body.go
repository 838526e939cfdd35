package client

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"imgcluster/cluster/image"
)

// body is the request body of one stream of an upload. It holds the reader to the promised size,
// counts what went to the network, and calls free when the reader is: net/http may close a body
// while another of its goroutines still reads it, and may go on reading after it has answered.
type body struct {
	r    io.Reader
	size int64
	sent func(bytes int64)
	free func() // called once, when nothing reads r any more

	mu      sync.Mutex
	n       int64 // bytes that came out of r
	busy    bool
	started bool
	closed  bool
	err     error // what is wrong with r itself
}

var errBodyClosed = errors.New("the upload's body is closed")

// Read is for connections of another type than conn.
func (b *body) Read(p []byte) (int, error) {
	if err := b.beginRead(); err != nil {
		return 0, err
	}
	defer b.endRead()
	n, err := b.next(p)
	b.sent(int64(n))
	return n, err
}

// next reads on. The last bytes come out only when r really ends there: a node takes an upload as
// complete at the promised size.
func (b *body) next(p []byte) (int, error) {
	n, err := b.r.Read(p)
	end := b.n + int64(n)
	if end == b.size && err == nil {
		var one [1]byte
		var more int
		for range 100 { // as bufio, give up on a reader that does nothing
			if more, err = b.r.Read(one[:]); more > 0 || err != nil {
				break
			}
		}
		end += int64(more)
	}
	switch {
	case end > b.size:
		return 0, b.fail("the body has more than the %d bytes announced", b.size)
	case err == io.EOF && end < b.size:
		return 0, b.fail("the body ended after %d of %d bytes", end, b.size)
	case err != nil && err != io.EOF:
		return 0, b.fail("the body cannot be read: %w", err)
	}
	b.n = end
	if end == b.size {
		err = io.EOF
	}
	return n, err
}

func (b *body) fail(format string, args ...any) error {
	err := image.Errorf(image.KindInvalid, format, args...).
		WithHint("send it again when nothing changes the file")
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
	return err
}

func (b *body) beginRead() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errBodyClosed
	}
	b.busy = true
	b.started = true
	return nil
}

func (b *body) endRead() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.busy = false
	if b.closed {
		b.release()
	}
}

// Close implements io.Closer. The reader is free when it is not being read just now.
func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	if !b.busy {
		b.release()
	}
	return nil
}

func (b *body) release() {
	if c, ok := b.r.(io.Closer); ok {
		c.Close() // was only read
	}
	b.free()
}

// state reports whether reading has begun, and returns what was wrong with the reader.
func (b *body) state() (started bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.started, b.err
}

// patient is a connection whose writes go on for as long as the peer takes anything within stall: a slow link
// is no reason to give up, a peer that takes nothing is. It is below TLS, for which a write that failed in
// the middle is the end of the connection.
type patient struct {
	net.Conn
	stall time.Duration
}

// Write implements net.Conn.
func (c *patient) Write(p []byte) (n int, err error) {
	for {
		if err := c.SetWriteDeadline(time.Now().Add(c.stall)); err != nil {
			return n, err
		}
		m, err := c.Conn.Write(p[n:])
		if n += m; m == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}

// conn is a connection that sends upload bodies without the 32 KiB steps of net/http: memory goes to the
// kernel, or to TLS, as it is, the rest through a larger buffer. This takes a quarter off the CPU time of a
// broadcast over loopback; sendfile takes off nothing there, so files come through the buffer as well.
type conn struct{ net.Conn }

// ReadFrom implements io.ReaderFrom; net/http calls it for a body of known length.
func (c conn) ReadFrom(r io.Reader) (int64, error) {
	limited, ok := r.(*io.LimitedReader)
	if !ok {
		return io.Copy(writerOnly{c}, r)
	}
	b, ok := limited.R.(*body)
	if !ok {
		return io.Copy(writerOnly{c}, r)
	}
	if err := b.beginRead(); err != nil {
		return 0, err
	}
	defer b.endRead()
	n, err := c.send(b)
	limited.N -= n
	return n, err
}

func (c conn) send(b *body) (int64, error) {
	w := counter{c, b.sent}
	if mem, ok := b.r.(*bytes.Reader); ok && b.n == 0 && int64(mem.Len()) == b.size {
		b.n = b.size
		return mem.WriteTo(w)
	}
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	return io.CopyBuffer(w, readFunc(b.next), *buf)
}

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, copyBufferBytes); return &b }}

// counter writes in pieces and counts them, so that the stall timeout is for one piece and a cut
// connection still counts what went out.
type counter struct {
	w    io.Writer
	sent func(bytes int64)
}

func (c counter) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = c.w.Write(p[n:min(len(p), n+writePieceBytes)])
		c.sent(int64(m))
		n += m
	}
	return n, err
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

type writerOnly struct{ io.Writer }
