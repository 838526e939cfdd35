package bulkio

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"imgcluster/cluster/clustertest/poll"
)

const (
	forever = time.Hour        // a wait that a test must not need
	soon    = 10 * time.Second // a test fails
)

// tcpPair returns both ends of a TCP connection.
func tcpPair(t *testing.T) (dialed *net.TCPConn, accepted net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	accepted, err = l.Accept()
	must(t, err)
	t.Cleanup(func() { conn.Close(); accepted.Close() })
	return conn.(*net.TCPConn), accepted
}

// plainPair returns both ends of a TCP connection, the second as a server has it.
func plainPair(t *testing.T) (client *net.TCPConn, server *Conn) {
	t.Helper()
	client, accepted := tcpPair(t)
	must(t, accepted.SetReadDeadline(time.Now().Add(soon)))
	return client, NewConn(accepted)
}

// hurry has the next read of a body wait as for one that comes very fast in small pieces.
func (c *Conn) hurry() {
	c.flow = flow{since: time.Now().Add(time.Hour), rate: 1e12, tried: tries}
}

// body reads a body from a connection, as the API does: at most a chunk at a time.
type body struct {
	io.Reader
	socket *Conn
	left   int64
	chunk  int
	within time.Duration
	got    atomic.Int64
}

func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	b.socket.hurry()
	b.socket.Expect(b.left, b.within)
	n, err := b.Reader.Read(p[:min(int64(len(p)), int64(b.chunk), b.left)])
	b.left -= int64(n)
	b.got.Add(int64(n))
	return n, err
}

// sender is a client's end of a connection.
type sender struct {
	io.Writer
	socket *net.TCPConn
}

// eachKind runs a test with TLS and without: with a sender, and what returns the body of the next request, of
// so many bytes.
func eachKind(t *testing.T, test func(*testing.T, sender, func(size int, within time.Duration) *body)) {
	t.Run("plain", func(t *testing.T) {
		client, server := plainPair(t)
		test(t, sender{client, client}, func(size int, within time.Duration) *body {
			return &body{Reader: server, socket: server, left: int64(size), chunk: 256 << 10, within: within}
		})
	})
	t.Run("tls", func(t *testing.T) {
		client, server, under := pair(t)
		must(t, server.SetReadDeadline(time.Now().Add(soon)))
		test(t, sender{client, under.TCPConn}, func(size int, within time.Duration) *body {
			socket := server.NetConn().(*Conn)
			return &body{Reader: server, socket: socket, left: int64(size), chunk: 256 << 10, within: within}
		})
	})
}

// TestWaitsForMany: what comes in small pieces is read in large ones.
func TestWaitsForMany(t *testing.T) {
	client, server := plainPair(t)
	const size = 256 << 10
	go func() {
		for range size / 1024 {
			client.Write(make([]byte, 1024))
		}
	}()
	server.hurry()
	server.Expect(size, forever)
	if n, err := server.Read(make([]byte, size)); n != size || err != nil {
		t.Errorf("one read got %d bytes, %v", n, err)
	}
}

// TestNeverWaitsForMore: however a body is cut into records and packets, reading it never waits for more than
// comes, so that the sender, who waits for the answer, gets it. What comes after it is not read with it.
func TestNeverWaitsForMore(t *testing.T) {
	eachKind(t, func(t *testing.T, to sender, next func(int, time.Duration) *body) {
		for _, size := range []int{
			1, markBytesMin - 1, markBytesMin, markBytesMin + 1, bufferBytes + heldBytesMax, 256<<10 + 1,
			1<<20 + 77777,
		} {
			for _, piece := range []int{1500, 16 << 10, 70_001, size} {
				sent := make([]byte, size+1) // one of the next request
				rand.Read(sent)
				go func() {
					for rest := sent; len(rest) > 0; {
						n, _ := to.Write(rest[:min(piece, len(rest))])
						rest = rest[n:]
					}
				}()
				b := next(size, forever)
				got, err := io.ReadAll(b)
				if err != nil || !bytes.Equal(got, sent[:size]) {
					t.Fatalf("%d bytes in pieces of %d: got %d, %v", size, piece, len(got), err)
				}
				after := make([]byte, 1)
				if _, err := b.Reader.Read(after); err != nil || after[0] != sent[size] {
					t.Fatalf("%d bytes in pieces of %d: after them %v, %v", size, piece, after, err)
				}
			}
		}
	})
}

// TestSenderStops: bytes are read soon although the sender stops in the middle, wherever that is.
func TestSenderStops(t *testing.T) {
	eachKind(t, func(t *testing.T, to sender, next func(int, time.Duration) *body) {
		const size = 512 << 10
		sent := make([]byte, size)
		rand.Read(sent)
		for _, stop := range []int{
			1, 4096, recordBytes, markBytesMin - 1, markBytesMin, markBytesMin + 1, bufferBytes,
			256<<10 - 1, 256 << 10, 256<<10 + 1, size - markBytesMin, size - heldBytesMax, size - 1,
		} {
			b := next(size, 20*time.Millisecond)
			var wg sync.WaitGroup
			wg.Go(func() {
				_, err := to.Write(sent[:stop])
				must(t, err)
				// TLS gives out whole records, which is what a Write makes.
				poll.Until(t, soon, fmt.Sprintf("%d bytes to be read", stop), func() bool {
					return b.got.Load() == int64(stop)
				})
				_, err = to.Write(sent[stop:])
				must(t, err)
			})
			got, err := io.ReadAll(b)
			wg.Wait()
			if err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("stopped after %d: got %d, %v", stop, len(got), err)
			}
		}
	})
}

// TestSenderLeaves: a reader that waits for many bytes notices the end and a reset at once.
func TestSenderLeaves(t *testing.T) {
	for _, reset := range []bool{false, true} {
		eachKind(t, func(t *testing.T, to sender, next func(int, time.Duration) *body) {
			b := next(1<<20, forever)
			_, err := to.Write(make([]byte, 10_000))
			must(t, err)
			done := make(chan error, 1)
			go func() {
				_, err := io.ReadAll(b)
				done <- err
			}()
			if reset {
				must(t, to.socket.SetLinger(0))
			}
			must(t, to.socket.Close())
			if err := <-done; errors.Is(err, os.ErrDeadlineExceeded) || err == nil && b.left == 0 {
				t.Errorf("reset %v: it ends with %v", reset, err)
			}
		})
	}
}

// TestDeadlineWhileWaiting: a read that waits for many bytes ends with its deadline, also one that is set
// meanwhile, and the next read takes what has come.
func TestDeadlineWhileWaiting(t *testing.T) {
	client, server := plainPair(t)
	_, err := client.Write([]byte("some"))
	must(t, err)
	read := make(chan error)
	go func() {
		server.hurry()
		server.Expect(1<<20, forever)
		_, err := server.Read(make([]byte, 1<<20))
		read <- err
	}()
	poll.Until(t, soon, "a wait", func() bool { return lowWater(t, server) > 1 })
	must(t, server.SetReadDeadline(time.Unix(1, 0)))
	if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it ends with %v", err)
	}
	must(t, server.SetReadDeadline(time.Now().Add(soon)))
	if n, err := server.Read(make([]byte, 9)); n != 4 || err != nil || lowWater(t, server) != 1 {
		t.Errorf("the next read got %d bytes, %v", n, err)
	}
}

// lowWater returns the mark of a socket as the kernel has it.
func lowWater(t *testing.T, c *Conn) (n int) {
	t.Helper()
	must(t, c.raw.Control(func(fd uintptr) {
		var err error
		n, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT)
		must(t, err)
	}))
	return n
}

// TestSlowBodies: for a body that comes slowly, or in pieces as large as there is room for, no read waits.
func TestSlowBodies(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		each, room int
		every      time.Duration
		waits      bool
	}{
		"fast, small pieces":   {50_000, 256 << 10, time.Millisecond, true},
		"fast, large pieces":   {200_000, 256 << 10, time.Millisecond, false},
		"slow, small pieces":   {4_000, 256 << 10, 100 * time.Millisecond, false},
		"little room, unknown": {4_000, 4_000, time.Millisecond, false},
	} {
		var f flow
		for range 100 {
			f.begin(now)
			f.bytes += int64(c.each)
			f.try(c.each, c.room)
			now = now.Add(c.every)
		}
		f.begin(now)
		waits := f.small() && f.in(50*time.Millisecond) >= markBytesMin
		if waits != c.waits {
			t.Errorf("%s: waits %v", name, waits)
		}
	}
}
