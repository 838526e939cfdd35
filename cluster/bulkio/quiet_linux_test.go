package bulkio

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

const quietPiece = 32 << 10 // quietBytesMax, but where races are looked for

// quietPair returns both ends of a TCP connection.
func quietPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	dialed, accepted := tcpPair(t)
	a, b = NewQuietConn(dialed), NewQuietConn(accepted)
	if _, ok := a.(*quietConn); !ok {
		t.Fatalf("a TCP connection becomes a %T", a)
	}
	return a, b
}

// TestQuiet: all that is written arrives, in pieces of any size, also when the reader makes the writer wait,
// and the end of one side is the end of the other.
func TestQuiet(t *testing.T) {
	sent := make([]byte, 6<<20+123)
	rand.Read(sent)
	for _, piece := range []int{quietPiece, quietPiece + 1, 999} {
		a, b := quietPair(t)
		var wg sync.WaitGroup
		wg.Go(func() {
			for rest := sent; len(rest) > 0; {
				n, err := a.Write(rest[:min(piece, len(rest))])
				must(t, err)
				rest = rest[n:]
			}
			must(t, a.Close())
		})
		got := make([]byte, 0, len(sent))
		for buf := make([]byte, piece); ; {
			n, err := b.Read(buf)
			got = append(got, buf[:n]...)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		wg.Wait()
		if !bytes.Equal(got, sent) {
			t.Errorf("in pieces of %d, %d bytes of %d arrive", piece, len(got), len(sent))
		}
	}
}

// TestQuietErrors: deadlines, a reset and a closed connection give the errors that other connections give.
func TestQuietErrors(t *testing.T) {
	a, b := quietPair(t)
	must(t, a.SetDeadline(time.Unix(1, 0)))
	for name, call := range map[string]func([]byte) (int, error){"read": a.Read, "write": a.Write} {
		var timeout net.Error
		if _, err := call([]byte("x")); !errors.As(err, &timeout) || !timeout.Timeout() ||
			!errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a %s after its deadline ends with %v", name, err)
		}
	}
	must(t, a.SetDeadline(time.Now().Add(20*time.Millisecond)))
	if n, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read without anything to read: %d, %v", n, err)
	}
	full := make([]byte, quietPiece)
	for err := error(nil); err == nil; {
		if _, err = a.Write(full); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a write that nobody reads: %v", err)
		}
	}

	must(t, a.SetDeadline(time.Now().Add(soon)))
	must(t, b.(*quietConn).SetLinger(0))
	must(t, b.Close())
	if _, err := a.Read(full); !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, new(*net.OpError)) {
		t.Errorf("a read after a reset: %v", err)
	}
	if _, err := a.Write(full); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("a write after a reset: %v", err)
	}
	must(t, a.Close())
	if _, err := a.Read(full); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a read of a closed connection: %v", err)
	}
	if _, err := a.Write(full); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write to a closed connection: %v", err)
	}
}
