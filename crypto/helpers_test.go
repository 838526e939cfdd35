package crypto

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// testKey is a key of known bytes: n, n+1, ...
func testKey(n byte) Key {
	k := keyOf(new([keyBytes]byte))
	for i := range k.b() {
		k.b()[i] = n + byte(i)
	}
	return k
}

// counter is randomness that is not: 0, 1, 2, ... For vectors only.
type counter struct{ next byte }

func (c *counter) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = c.next
		c.next++
	}
	return len(p), nil
}

// testSegment is small, so that every edge is within a few hundred bytes: segment 0 has 8 bytes of
// plaintext, the others 48.
const (
	testSegment = segmentSizeMin
	firstPlain  = testSegment - tagBytes - StreamHeaderBytes
	fullPlain   = testSegment - tagBytes
)

func testFields(length, segment int) HeaderFields {
	return HeaderFields{
		Image: [16]byte{1, 2, 3, 0x70, 5, 6, 7, 8, 0x89}, Attempt: [16]byte{15: 3}, Tenant: "alice", UserKey: 7,
		Length: int64(length), SegmentSize: segment,
	}
}

// testPlain is n bytes that do not repeat with any segment.
func testPlain(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// encryptWith writes plain in chunks and returns the file.
func encryptWith(t testing.TB, k Key, f HeaderFields, plain []byte, chunk int, random io.Reader) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := newEncryptWriter(&out, k, f, random)
	if err != nil {
		t.Fatal(err)
	}
	for p := plain; len(p) > 0; {
		n := min(chunk, len(p))
		if m, err := w.Write(p[:n]); m != n || err != nil {
			t.Fatalf("wrote %d of %d: %v", m, n, err)
		}
		p = p[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func encrypt(t testing.TB, k Key, f HeaderFields, plain []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewEncryptWriter(&out, k, f)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// just gives the same key for every file.
func just(k Key) KeyFunc { return func(*Header) (Key, error) { return k, nil } }

// newReader reads all plaintext of a file.
func newReader(file []byte, k Key) (*RangeReader, error) {
	src := bytes.NewReader(file)
	o, err := OpenStream(src, just(k))
	if err != nil {
		return nil, err
	}
	return o.NewRangeReader(src, 0, o.Header().Length)
}

// verify returns what Verify releases of a file, and the error that ended it.
func verify(file []byte, k Key) ([]byte, error) {
	var plain bytes.Buffer
	_, err := Verify(&plain, bytes.NewReader(file), just(k))
	return plain.Bytes(), err
}

// stream returns what is released to a reader that does not look behind the image's end, and the error that
// ended it.
func stream(file []byte, k Key) ([]byte, error) {
	r, err := newReader(file, k)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(struct{ io.Reader }{r})
}

// wantKind fails unless err is an *Error of the kind, with a hint.
func wantKind(t testing.TB, err, kind error) {
	t.Helper()
	var e *Error
	if !errors.Is(err, kind) || !errors.As(err, &e) || e.Hint() == "" || e.Detail == "" {
		t.Fatalf("error %v, want %q with a hint", err, kind)
	}
}

// refused reports whether err says that the file is not good, and not something else.
func refused(err error) bool { return errors.Is(err, ErrAuth) || errors.Is(err, ErrFormat) }

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// line is the line of a key's file.
func (m *MasterKey) line() string {
	lines := strings.Split(strings.TrimSpace(string(m.file())), "\n")
	return lines[len(lines)-1]
}
