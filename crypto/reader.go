package crypto

import (
	"fmt"
	"io"
)

// KeyFunc returns the user's key that a file needs, by the tenant and the user-key ID in its
// header, which is not authenticated yet. Its errors come through as they are.
type KeyFunc func(h *Header) (Key, error)

// OpenStream reads the start of a file from r, asks keys for the key, and opens it. It reads
// exactly what comes before the first segment: NewRangeReader(r, 0, length) goes on from there.
func OpenStream(r io.Reader, keys KeyFunc) (*Opened, error) {
	var buf [PrefixMaxBytes]byte
	n, err := readFull(r, buf[:fixedBytes])
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	size, err := headerLen(buf[:n])
	if err != nil {
		return nil, err
	}
	m, err := readFull(r, buf[n:size+StreamHeaderBytes])
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	prefix := buf[:n+m] // Open judges whether it is too short
	h, err := ParseHeader(prefix)
	if err != nil {
		return nil, err
	}
	userKey, err := keys(h)
	if err != nil {
		return nil, err
	}
	return Open(prefix, userKey)
}

// Reader is the plaintext of a whole file as an io.ReadSeeker. It is not safe for use by several
// goroutines.
type Reader struct {
	*Opened
	src io.ReaderAt
	cur *RangeReader // from pos to the end; nil when pos was moved
	pos int64
}

// NewReader opens the file of size bytes in src. A size that is not what the header says is an
// ErrAuth. The caller closes the Reader, and then src.
func NewReader(src io.ReaderAt, size int64, keys KeyFunc) (*Reader, error) {
	o, err := OpenStream(io.NewSectionReader(src, 0, size), keys)
	if err != nil {
		return nil, err
	}
	want := o.layout.fileLen()
	if size < want {
		return nil, truncated(size, want)
	}
	if size > want {
		return nil, trailing(want)
	}
	return &Reader{Opened: o, src: src}, nil
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	if err := r.position(); err != nil {
		return 0, err
	}
	n, err := r.cur.Read(p)
	r.pos += int64(n)
	return n, err
}

// WriteTo implements io.WriterTo; see RangeReader.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	if err := r.position(); err != nil {
		return 0, err
	}
	n, err := r.cur.WriteTo(w)
	r.pos += n
	return n, err
}

// position makes cur start at pos.
func (r *Reader) position() (err error) {
	if r.cur != nil {
		return nil
	}
	off := min(r.pos, r.layout.length) // behind the end there is nothing to read
	n := r.layout.length - off
	start, size, err := r.Range(off, n)
	if err == nil {
		r.cur, err = r.NewRangeReader(io.NewSectionReader(r.src, start, size), off, n)
	}
	return err
}

// Seek implements io.Seeker. The segment at the new place is read and authenticated by the next
// Read.
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.layout.length
	}
	if offset < 0 || whence < io.SeekStart || whence > io.SeekEnd {
		return r.pos, &Error{
			Kind: ErrRange, Detail: "seek to before the start of the image",
			hint: "ask for a range inside the image",
		}
	}
	if offset != r.pos {
		r.Close()
	}
	r.pos = offset
	return offset, nil
}

// Close gives the segment buffer back; a later Read starts again at the same place. It does not
// close the source.
func (r *Reader) Close() error {
	if r.cur != nil {
		r.cur.Close()
		r.cur = nil
	}
	return nil
}

// Verify reads a whole file from r and authenticates every byte of it, and that nothing follows. It
// returns the authenticated header, for the caller to compare with its record (see Matches).
func Verify(r io.Reader, keys KeyFunc) (*Header, error) { return VerifyTo(io.Discard, r, keys) }

// VerifyTo is Verify, and writes the plaintext to w. What w got is authenticated but may lack its end
// when there is an error.
func VerifyTo(w io.Writer, r io.Reader, keys KeyFunc) (*Header, error) {
	o, err := OpenStream(r, keys)
	if err != nil {
		return nil, err
	}
	body, err := o.NewRangeReader(r, 0, o.layout.length)
	if err != nil {
		return nil, err
	}
	if _, err := body.WriteTo(w); err != nil {
		return nil, err
	}
	var one [1]byte
	switch n, err := readFull(r, one[:]); {
	case n > 0:
		return nil, trailing(o.layout.fileLen())
	case err != io.EOF:
		return nil, fmt.Errorf("read the end of the file: %w", err)
	}
	return o.Header(), nil
}

func trailing(end int64) error {
	return &Error{
		Kind: ErrAuth, Detail: fmt.Sprintf("file goes on after its end at byte %d", end), hint: hintDamaged,
	}
}
