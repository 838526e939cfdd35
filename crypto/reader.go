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

// Verify reads a whole file from r, authenticates every byte of it, and that nothing follows, and writes the
// plaintext to w. It returns the authenticated header, for the caller to compare with its record (see
// Matches). What w got is authenticated but may lack its end when there is an error.
func Verify(w io.Writer, r io.Reader, keys KeyFunc) (*Header, error) {
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
