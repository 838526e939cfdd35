package crypto

import (
	"crypto/cipher"
	"fmt"
	"io"
)

// readsWithoutProgress is how often a source may return nothing and no error in a row.
const readsWithoutProgress = 100

// Opened is a file whose header is authenticated and whose key is known. It holds no reader: the
// ciphertext can come from anywhere, one range at a time. It is safe for use by several
// goroutines.
type Opened struct {
	header Header
	layout layout
	aead   cipher.AEAD
	prefix [prefixBytes]byte
}

// Open authenticates the header at the start of prefix, which is the first PrefixMaxBytes of the
// file, or all of it if it is shorter. It checks the wrapped data key and the key commitment;
// nothing is decrypted before. Errors are of kind ErrFormat or ErrAuth, or ErrInvalid for a key
// that is none.
func Open(prefix []byte, userKey Key) (*Opened, error) {
	h, err := ParseHeader(prefix)
	if err != nil {
		return nil, err
	}
	n := headerBytes(h.Tenant)
	if len(prefix) < n+StreamHeaderBytes {
		return nil, truncated(int64(len(prefix)), int64(n+StreamHeaderBytes))
	}
	header, stream := prefix[:n], prefix[n:n+StreamHeaderBytes]
	dataKey, err := h.openHeader(userKey)
	if err != nil {
		return nil, err
	}
	defer dataKey.Zero()
	if stream[0] != StreamHeaderBytes {
		return nil, &Error{
			Kind: ErrAuth,
			Detail: fmt.Sprintf("stream header length at byte %d is %d, not %d",
				n, stream[0], StreamHeaderBytes),
			hint: hintDamaged,
		}
	}
	o := &Opened{header: *h, layout: h.layout()}
	o.aead, err = openStream(dataKey, header, stream, &o.prefix)
	return o, err
}

// Header returns the authenticated header.
func (o *Opened) Header() *Header {
	h := o.header
	return &h
}

// Range returns which bytes of the file, from its very start, hold the plaintext range of n bytes
// at off: whole segments. With n = 0 it is nothing, but for an empty image, which has one segment
// to authenticate. A range that is not inside the plaintext is an ErrRange.
func (o *Opened) Range(off, n int64) (ctOff, ctLen int64, err error) {
	first, end, err := o.span(off, n)
	if err != nil || first == end {
		return 0, 0, err
	}
	start, _ := o.layout.file(first)
	_, stop := o.layout.file(end - 1)
	return start, stop - start, nil
}

// span returns the segments [first, end) that hold a range.
func (o *Opened) span(off, n int64) (first, end int64, err error) {
	length := o.layout.length
	switch {
	case off < 0 || n < 0 || off > length || n > length-off:
		return 0, 0, &Error{
			Kind:   ErrRange,
			Detail: fmt.Sprintf("%d bytes at byte %d are not inside an image of %d bytes", n, off, length),
			hint:   "ask for a range inside the image",
		}
	case n == 0 && length > 0:
		return 0, 0, nil
	case length == 0:
		return 0, 1, nil
	}
	return o.layout.at(off), o.layout.at(off+n-1) + 1, nil
}

// NewRangeReader returns the plaintext range of n bytes at off, decrypted from r, which gives the
// ctLen bytes at ctOff that Range names; r may go on after them, and they are all that is read.
func (o *Opened) NewRangeReader(r io.Reader, off, n int64) (*RangeReader, error) {
	first, end, err := o.span(off, n)
	if err != nil {
		return nil, err
	}
	return &RangeReader{o: o, src: r, segment: first, end: end, off: off, stop: off + n}, nil
}

// RangeReader decrypts a range. It releases only plaintext that is authenticated, ends with io.EOF
// after the range, and after any other error releases nothing more. Errors of the source come
// through wrapped, and are not ErrAuth: a source that ends too early with io.EOF is a cut file, one
// that fails, such as a lost connection (io.ErrUnexpectedEOF), says nothing of the file.
//
// It holds one segment buffer until its end, an error or Close. It is not safe for use by several
// goroutines.
type RangeReader struct {
	o            *Opened
	src          io.Reader
	segment, end int64 // next segment, and the one after the last
	off, stop    int64 // the range of plaintext
	nonce        [nonceBytes]byte
	buf          *[]byte
	used         int    // bytes of buf that are to be cleared
	plain        []byte // authenticated, not yet released; part of buf
	err          error  // sticky
}

// Read implements io.Reader.
func (r *RangeReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := r.fill(); err != nil {
		return 0, err
	}
	n := copy(p, r.plain)
	r.plain = r.plain[n:]
	return n, nil
}

// Next returns what is left of a segment, in place: it is valid until the next call.
func (r *RangeReader) Next() ([]byte, error) {
	if err := r.fill(); err != nil {
		return nil, err
	}
	plain := r.plain
	r.plain = nil
	return plain, nil
}

// WriteTo implements io.WriterTo: io.Copy hands over whole segments without a buffer of its own.
func (r *RangeReader) WriteTo(w io.Writer) (total int64, err error) {
	for {
		plain, err := r.Next()
		if err == io.EOF {
			return total, nil
		} else if err != nil {
			return total, err
		}
		n, err := w.Write(plain)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
}

// Close gives the buffer back early. It need not be called after a Read that returned an error. It
// does not close the source.
func (r *RangeReader) Close() error {
	if r.err == nil {
		r.fail(io.ErrClosedPipe)
	}
	return nil
}

// fill makes plain not empty, or returns the sticky error.
func (r *RangeReader) fill() error {
	for r.err == nil && len(r.plain) == 0 {
		if r.segment == r.end {
			r.fail(io.EOF)
			break
		}
		if err := r.open(); err != nil {
			r.fail(err)
		}
	}
	return r.err
}

// open reads and authenticates the next segment, in place, and cuts it to the range.
func (r *RangeReader) open() error {
	if r.buf == nil {
		r.buf = borrow(r.o.header.SegmentSize)
	}
	k, l := r.segment, r.o.layout
	start, end := l.file(k)
	sealed := (*r.buf)[:end-start]
	r.used = max(r.used, len(sealed))
	n, err := readFull(r.src, sealed)
	if err == io.EOF {
		return truncated(start+int64(n), end)
	} else if err != nil {
		return fmt.Errorf("read segment %d at byte %d: %w", k, start+int64(n), err)
	}
	setNonce(&r.nonce, &r.o.prefix, k, k == l.segments()-1)
	plain, err := r.o.aead.Open(sealed[:0], r.nonce[:], sealed, nil)
	if err != nil {
		return &Error{
			Kind: ErrAuth, Detail: fmt.Sprintf("segment %d at byte %d was changed", k, start),
			hint: hintDamaged,
		}
	}
	from, to := l.plain(k)
	r.plain = plain[max(r.off, from)-from : min(r.stop, to)-from]
	r.segment++
	return nil
}

// fail ends the reader with err.
func (r *RangeReader) fail(err error) {
	release(r.buf, r.used)
	r.buf, r.plain, r.err = nil, nil, err
}

// readFull fills b. Unlike io.ReadFull it returns the source's own io.EOF when that came too
// early, so that the end of the source and a failure of it can be told apart.
func readFull(r io.Reader, b []byte) (n int, err error) {
	idle := 0
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
		if idle++; m > 0 {
			idle = 0
		}
		if idle > readsWithoutProgress {
			err = io.ErrNoProgress
		}
	}
	if n == len(b) {
		err = nil
	}
	return n, err
}
