package crypto

import (
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"io"
	"sync"
)

// segmentPools lend segment buffers to writers and readers, those for small segments apart: many
// readers at once must not hold eight times what they use. There are never more of them in use than
// open writers and readers, which is for the caller to bound; unused ones are collected.
var segmentPools = map[int]*sync.Pool{
	smallSegmentBytes:  newSegmentPool(smallSegmentBytes),
	SegmentSizeDefault: newSegmentPool(SegmentSizeDefault),
}

const smallSegmentBytes = 128 << 10

func newSegmentPool(size int) *sync.Pool {
	return &sync.Pool{New: func() any { b := make([]byte, size); return &b }}
}

// borrow returns a buffer for segments of so many bytes; release it.
func borrow(segment int) *[]byte {
	size := SegmentSizeDefault
	if segment <= smallSegmentBytes {
		size = smallSegmentBytes
	}
	return segmentPools[size].Get().(*[]byte)
}

// release clears what was used of a buffer, since it may be plaintext, and gives it back.
func release(buf *[]byte, used int) {
	if buf != nil {
		clear((*buf)[:used])
		segmentPools[len(*buf)].Put(buf)
	}
}

// EncryptWriter encrypts one file as its plaintext arrives, in memory of one segment. Each one
// draws its own data key, so copies of the same image have nothing in common. It is not safe for
// use by several goroutines.
type EncryptWriter struct {
	dst     io.Writer
	direct  availableBuffer // dst, where segments can be sealed in its buffer
	aead    cipher.AEAD
	layout  layout
	last    int64 // number of the last segment
	prefix  [prefixBytes]byte
	nonce   [nonceBytes]byte
	buf     *[]byte
	n       int   // plaintext bytes in buf
	written int64 // plaintext bytes taken in
	segment int64 // number of the segment that buf collects
	closed  bool
	err     error // sticky
}

// availableBuffer is a destination with a buffer of its own, such as a bufio.Writer: what is appended to it
// and then written is not copied.
type availableBuffer interface{ AvailableBuffer() []byte }

// NewEncryptWriter writes the header of a new file to dst and returns the writer for its
// plaintext. f.UserKey is the ID of userKey. The caller closes the writer, and then dst.
//
// A file counts only when Close returned nil. Until then its last segment is missing, so that it
// authenticates nowhere: to give up, Close early and drop the file.
func NewEncryptWriter(dst io.Writer, userKey Key, f HeaderFields) (*EncryptWriter, error) {
	return newEncryptWriter(dst, userKey, f, rand.Reader)
}

func newEncryptWriter(dst io.Writer, userKey Key, f HeaderFields, random io.Reader) (*EncryptWriter, error) {
	h, dataKey, err := sealHeader(f, userKey, random)
	if err != nil {
		return nil, err
	}
	defer dataKey.Zero()
	start := append(h.Marshal(), make([]byte, StreamHeaderBytes)...)
	header, stream := start[:headerBytes(h.Tenant)], start[headerBytes(h.Tenant):]
	stream[0] = StreamHeaderBytes
	if _, err := io.ReadFull(random, stream[1:]); err != nil {
		return nil, fmt.Errorf("draw a salt: %w", err)
	}
	w := &EncryptWriter{dst: dst, layout: h.layout()}
	w.direct, _ = dst.(availableBuffer)
	w.last = w.layout.segments() - 1
	if w.aead, err = openStream(dataKey, header, stream, &w.prefix); err != nil {
		return nil, err
	}
	if _, err := dst.Write(start); err != nil {
		return nil, fmt.Errorf("write the header: %w", err)
	}
	w.buf = borrow(h.SegmentSize)
	return w, nil
}

// openStream derives the stream's cipher as Tink does, with the header as associated data, and
// reads the nonce prefix.
func openStream(dataKey Key, header, stream []byte, prefix *[prefixBytes]byte) (cipher.AEAD, error) {
	copy(prefix[:], stream[1+saltBytes:])
	return deriveGCM(dataKey, stream[1:1+saltBytes], string(header))
}

// Write encrypts p, and writes every segment that is full. It does not keep or change p. More
// bytes than the header announces are refused at once, with ErrLength; after any error the writer
// only returns that error.
func (w *EncryptWriter) Write(p []byte) (int, error) {
	if w.closed && w.err == nil {
		return 0, &Error{Kind: ErrInvalid, Detail: "write after close", hint: "start a new file"}
	}
	if w.err == nil && int64(len(p)) > w.layout.length-w.written {
		w.fail(w.lengthError(w.written + int64(len(p))))
	}
	done := 0
	for w.err == nil && done < len(p) {
		n, err := w.take(p[done:])
		done += n
		if err != nil {
			w.fail(err)
		}
	}
	return done, w.err
}

// take consumes the part of p that goes into the current segment. A full segment is sealed, from p
// directly when all of it is there; the last one waits for Close.
func (w *EncryptWriter) take(p []byte) (int, error) {
	start, end := w.layout.plain(w.segment)
	room := int(end-start) - w.n
	if len(p) >= room && w.n == 0 && w.segment < w.last {
		w.written += int64(room)
		return room, w.seal(p[:room])
	}
	n := copy((*w.buf)[w.n:w.n+room], p)
	w.n += n
	w.written += int64(n)
	if n == room && w.segment < w.last {
		return n, w.seal((*w.buf)[:w.n])
	}
	return n, nil
}

// seal encrypts plain, which is the collected part of buf or the caller's, and writes it.
func (w *EncryptWriter) seal(plain []byte) error {
	setNonce(&w.nonce, &w.prefix, w.segment, w.segment == w.last)
	to := (*w.buf)[:0]
	if w.direct != nil {
		to = w.direct.AvailableBuffer()
	}
	sealed := w.aead.Seal(to, w.nonce[:], plain, nil)
	w.n = 0
	if _, err := w.dst.Write(sealed); err != nil {
		return fmt.Errorf("write segment %d: %w", w.segment, err)
	}
	w.segment++
	return nil
}

// Close seals the last segment. It fails with ErrLength, and leaves the last segment out, when
// fewer bytes came than the header announces. It does not close dst. A second Close says what the
// first one said.
func (w *EncryptWriter) Close() error {
	if w.closed || w.err != nil {
		return w.err
	}
	w.closed = true
	if w.written != w.layout.length {
		w.fail(w.lengthError(w.written))
		return w.err
	}
	w.fail(w.seal((*w.buf)[:w.n]))
	return w.err
}

// fail ends the writer with err, or with success when it is nil.
func (w *EncryptWriter) fail(err error) {
	w.err = err
	release(w.buf, w.n)
	w.buf, w.n = nil, 0
}

func (w *EncryptWriter) lengthError(got int64) error {
	return &Error{
		Kind:   ErrLength,
		Detail: fmt.Sprintf("%d bytes of plaintext, the header announces %d", got, w.layout.length),
		hint:   "drop the file, and send the image again with the right length",
	}
}
