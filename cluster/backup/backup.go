// Package backup reads and writes backups: the catalog of a cluster, with its users' wrapped keys, its access
// keys and its members, in one file that is sealed under the master key. Images are in none.
//
// A backup is
//
//	magic, with the version as its last byte    8 bytes
//	ID of the master key                       16 bytes, hexadecimal digits
//	ID of the backup, random                   16 bytes
//	frames, each
//	    length, its highest bit set in the last one    4 bytes, big endian
//	    that many sealed bytes, in which are
//	        the shard, 0 for what is about all         8 bytes, big endian
//	        bytes
//
// A frame is sealed with all that comes before the frames, its number and whether it is the last. The first
// one is the Header as JSON, the last one the Trailer, and between them are the states of the shards, each as
// a snapshot of package consensus, in one piece or several.
package backup

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"imgcluster/cluster/image"
)

const (
	magic   = "imgcbak\x01"
	keyID   = 16
	idBytes = 16
	// frameBytes is how much of a shard a frame has, at most, and sealedBytes the most that one is read of.
	frameBytes  = 256 << 10
	sealedBytes = frameBytes + 1<<10
	lastBit     = 1 << 31
	// about is the shard of the frames that are about all of them.
	about = 0
)

// Sealer seals frames, such as a crypto.RingSealer.
type Sealer interface {
	Seal(plaintext, ad []byte) []byte
	Open(sealed, ad []byte) ([]byte, error)
}

// Header says what a backup is of.
type Header struct {
	Cluster string       `json:"cluster"` // its name
	Version string       `json:"version"` // of the program that made it
	Created time.Time    `json:"created"`
	Node    image.NodeID `json:"node"` // that made it
}

// Trailer says what is in a backup.
type Trailer struct {
	Shards []uint64 `json:"shards"`
	// Behind are those of them of which the node could not find out whether it had the newest state: their
	// groups had no majority.
	Behind []uint64 `json:"behind,omitempty"`
}

// The reasons why a backup is refused, for errors.Is.
var (
	ErrNotBackup = errors.New("not a backup")
	ErrTruncated = errors.New("the backup is not complete")
	ErrDamaged   = errors.New("the backup is damaged, or was changed")
	ErrOtherKey  = errors.New("the backup is sealed under another master key")
)

func refuse(reason error, hint, format string, args ...any) error {
	return image.Errorf(image.KindInvalid, "%w: %s", reason, fmt.Sprintf(format, args...)).WithHint(hint)
}

// place is what a frame is bound to.
func place(head []byte, number uint64, last bool) []byte {
	ad := binary.BigEndian.AppendUint64(append([]byte(nil), head...), number)
	if last {
		return append(ad, 1)
	}
	return append(ad, 0)
}

// Writer writes a backup.
type Writer struct {
	dst    io.Writer
	sealer Sealer
	head   []byte
	frames uint64
}

// NewWriter begins a backup. master is the ID of the master key that s seals under.
func NewWriter(dst io.Writer, s Sealer, master string, h Header) (*Writer, error) {
	if len(master) != keyID {
		return nil, fmt.Errorf("begin a backup: master key ID %q", master)
	}
	w := &Writer{dst: dst, sealer: s, head: append([]byte(magic), master...)}
	var id [idBytes]byte
	rand.Read(id[:]) // never fails, see crypto/rand
	w.head = append(w.head, id[:]...)
	if _, err := dst.Write(w.head); err != nil {
		return nil, err
	}
	b, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	return w, w.frame(about, b, false)
}

func (w *Writer) frame(shard uint64, content []byte, last bool) error {
	plain := append(binary.BigEndian.AppendUint64(nil, shard), content...)
	sealed := w.sealer.Seal(plain, place(w.head, w.frames, last))
	w.frames++
	length := uint32(len(sealed))
	if last {
		length |= lastBit
	}
	_, err := w.dst.Write(append(binary.BigEndian.AppendUint32(nil, length), sealed...))
	return err
}

// Shard adds the state of a shard, which write writes.
func (w *Writer) Shard(shard uint64, write func(io.Writer) error) error {
	b := bufio.NewWriterSize(shardWriter{w, shard}, frameBytes)
	if err := write(b); err != nil {
		return err
	}
	return b.Flush()
}

type shardWriter struct {
	w     *Writer
	shard uint64
}

func (s shardWriter) Write(p []byte) (n int, err error) {
	for err == nil && n < len(p) {
		part := p[n:min(len(p), n+frameBytes)]
		if err = s.w.frame(s.shard, part, false); err == nil {
			n += len(part)
		}
	}
	return n, err
}

// Close ends the backup.
func (w *Writer) Close(t Trailer) error {
	b, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return w.frame(about, b, true)
}

// Reader reads a backup. What it gives is authentic, but complete only once Next has returned io.EOF.
type Reader struct {
	// Header is the backup's, and Trailer as well once Next has returned io.EOF.
	Header  Header
	Trailer Trailer

	src    *bufio.Reader
	sealer Sealer
	head   []byte
	frames uint64
	shard  uint64 // of the last frame
	left   []byte // of it
	ended  bool   // it was the last one
	given  uint64 // shard that Next has returned last, 0 before
}

// MasterKeyOf returns the ID of the master key that a backup is sealed under. The error is ErrNotBackup,
// ErrTruncated or src's.
func MasterKeyOf(src io.Reader) (string, error) {
	head, err := readHead(src)
	if err != nil {
		return "", err
	}
	return string(head[len(magic):][:keyID]), nil
}

func readHead(src io.Reader) ([]byte, error) {
	head := make([]byte, len(magic)+keyID+idBytes)
	n, err := io.ReadFull(src, head)
	const hint = "give a file that imgcluster backup has written"
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		if n < len(magic) || string(head[:len(magic)]) != magic {
			return nil, refuse(ErrNotBackup, hint, "it has %d bytes", n)
		}
		return nil, truncated()
	case err != nil:
		return nil, err
	case string(head[:len(magic)-1]) != magic[:len(magic)-1]:
		return nil, refuse(ErrNotBackup, hint, "it begins otherwise")
	case head[len(magic)-1] != magic[len(magic)-1]:
		return nil, refuse(ErrNotBackup, "use the version of imgcluster that wrote it, or a newer one",
			"it has the format %d, this program reads %d", head[len(magic)-1], magic[len(magic)-1])
	}
	return head, nil
}

func truncated() error {
	return refuse(ErrTruncated, "use another backup, or copy this one again from where it was made",
		"it ends before its last part")
}

// NewReader begins to read a backup. The error wraps one of the reasons above, or is src's.
func NewReader(src io.Reader, s Sealer) (*Reader, error) {
	r := &Reader{src: bufio.NewReaderSize(src, 64<<10), sealer: s}
	var err error
	if r.head, err = readHead(r.src); err != nil {
		return nil, err
	}
	if err = r.next(); err != nil {
		return nil, err
	}
	if r.shard != about || r.ended || json.Unmarshal(r.left, &r.Header) != nil {
		return nil, r.damaged()
	}
	r.left = nil
	return r, nil
}

func (r *Reader) damaged() error {
	return refuse(ErrDamaged, "use another backup, or copy this one again from where it was made",
		"part %d of it does not authenticate", r.frames)
}

// next reads a frame.
func (r *Reader) next() error {
	var length [4]byte
	if _, err := io.ReadFull(r.src, length[:]); err != nil {
		return orTruncated(err)
	}
	n := binary.BigEndian.Uint32(length[:])
	last := n&lastBit != 0
	if n &^= lastBit; n > sealedBytes {
		return r.damaged()
	}
	sealed := make([]byte, n)
	if _, err := io.ReadFull(r.src, sealed); err != nil {
		return orTruncated(err)
	}
	plain, err := r.sealer.Open(sealed, place(r.head, r.frames, last))
	if err != nil || len(plain) < 8 {
		return r.damaged()
	}
	r.frames++
	r.shard, r.left, r.ended = binary.BigEndian.Uint64(plain), plain[8:], last
	return nil
}

func orTruncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return truncated()
	}
	return err
}

// Next returns the next shard and its state, of which what is not read is skipped. At the end of the backup
// the error is io.EOF.
func (r *Reader) Next() (shard uint64, state io.Reader, err error) {
	for r.shard == r.given && !r.ended { // what was not read of it; at first the header
		if err := r.next(); err != nil {
			return 0, nil, err
		}
	}
	switch {
	case !r.ended && r.shard != about:
		r.given = r.shard
		return r.shard, &section{r, r.shard}, nil
	case !r.ended || r.shard != about || json.Unmarshal(r.left, &r.Trailer) != nil:
		return 0, nil, r.damaged()
	}
	if _, err := r.src.ReadByte(); err == nil {
		return 0, nil, refuse(ErrDamaged, "use another backup, or copy this one again from where it was made",
			"something comes after its end")
	}
	return 0, nil, io.EOF
}

// section reads the state of one shard.
type section struct {
	r     *Reader
	shard uint64
}

func (s *section) Read(p []byte) (int, error) {
	for {
		if s.r.shard != s.shard {
			return 0, io.EOF
		}
		if len(s.r.left) > 0 {
			n := copy(p, s.r.left)
			s.r.left = s.r.left[n:]
			return n, nil
		}
		if err := s.r.next(); err != nil {
			return 0, err
		}
	}
}
