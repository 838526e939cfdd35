package consensus

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/cockroachdb/pebble/v2"
	sm "github.com/lni/dragonboat/v4/statemachine"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wait"
	"imgcluster/crypto"
)

// A snapshot of a shard is
//
//	magic, with the version as its last byte   8 bytes
//	shard                                      8 bytes, big endian
//	for each key, in byte order, without the shard:
//	    length of the key, the key             uvarint, bytes
//	    length of the value, the value         uvarint, bytes; of the state sealed, see Options.Snapshots
//	0                                          uvarint: no key is empty
//	SHA-256 of all that                        32 bytes
//
// The applied index is the key of the own section, so it is always there and comes first.
const snapshotMagic = "imgcsnp\x01"

// errSnapshot is the cause of every refusal of a snapshot.
var errSnapshot = errors.New("snapshot is damaged or not for this shard")

// writeSnapshot writes what it runs over.
func (d *database) writeSnapshot(
	w io.Writer, shard uint64, it *pebble.Iterator, stop <-chan struct{},
) error {
	sum := sha256.New()
	b := bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10)
	head := binary.BigEndian.AppendUint64([]byte(snapshotMagic), shard)
	b.Write(head) // the writer keeps its error until Flush
	var n [binary.MaxVarintLen64]byte
	for ok := it.First(); ok; ok = it.Next() {
		if wait.Closed(stop) {
			return sm.ErrSnapshotStopped
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if full := it.Key(); isState(full) {
			if value, err = openValue(d.disk, full, value); err != nil {
				return err
			}
			value = sealValue(d.snapshots, full, value)
		}
		key := it.Key()[8:]
		b.Write(binary.AppendUvarint(n[:0], uint64(len(key))))
		b.Write(key)
		b.Write(binary.AppendUvarint(n[:0], uint64(len(value))))
		if _, err := b.Write(value); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return err
	}
	b.WriteByte(0)
	if err := b.Flush(); err != nil {
		return err
	}
	_, err := w.Write(sum.Sum(nil))
	return err
}

// hashedReader hashes what is taken from it, byte by byte as far as the parser went.
type hashedReader struct {
	r      *bufio.Reader
	sum    hash.Hash
	failed error // of ReadByte
}

func (h *hashedReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.sum.Write(p[:n])
	return n, err
}

// ReadByte implements io.ByteReader.
func (h *hashedReader) ReadByte() (byte, error) {
	c, err := h.r.ReadByte()
	if err == nil {
		h.sum.Write([]byte{c})
	}
	h.failed = err
	return c, err
}

// bytes reads a length and that many bytes into buf.
func (h *hashedReader) bytes(buf []byte, max uint64) ([]byte, error) {
	n, err := binary.ReadUvarint(h)
	if err != nil && h.failed == nil { // not that of reading
		err = fmt.Errorf("%w: %w", errSnapshot, err)
	}
	if err != nil {
		return nil, err
	}
	if n > max {
		return nil, fmt.Errorf("%w: a length of %d bytes", errSnapshot, n)
	}
	if uint64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	_, err = io.ReadFull(h, buf)
	return buf, err
}

// readSnapshot calls fn with each key, the shard in front, and its value. Nothing may be believed
// before it returned nil: the checksum is at the end.
func readSnapshot(r io.Reader, shard uint64, stop <-chan struct{}, fn func(key, value []byte) error) error {
	err := parseSnapshot(&hashedReader{r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}, shard, stop, fn)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends early", errSnapshot)
	}
	return err
}

func parseSnapshot(
	h *hashedReader, shard uint64, stop <-chan struct{}, fn func(key, value []byte) error,
) error {
	head := make([]byte, len(snapshotMagic)+8)
	if _, err := io.ReadFull(h, head); err != nil {
		return err
	}
	if v := len(snapshotMagic) - 1; string(head[:v]) == snapshotMagic[:v] && head[v] > snapshotMagic[v] {
		return image.Errorf(image.KindInternal, "%w: it has the format %d, this program knows %d", errSnapshot,
			head[v], snapshotMagic[v]).WithHint("start the newer imgcluster, which other nodes run, here too")
	}
	if want := binary.BigEndian.AppendUint64([]byte(snapshotMagic), shard); !bytes.Equal(head, want) {
		return fmt.Errorf("%w: it begins with %q, not %q", errSnapshot, head, want)
	}
	prefix := span(shard).Start
	var key, value, last []byte
	for {
		if wait.Closed(stop) {
			return sm.ErrSnapshotStopped
		}
		var err error
		if key, err = h.bytes(key, keyBytesMax+1); err != nil {
			return err
		}
		if len(key) == 0 {
			break
		}
		if value, err = h.bytes(value, valueBytesMax+crypto.SealBytes); err != nil {
			return err
		}
		full := append(bytes.Clone(prefix), key...)
		switch {
		case last == nil && !bytes.Equal(full, appliedKey(shard)):
			return fmt.Errorf("%w: it has no applied index", errSnapshot)
		case bytes.Compare(last, full) >= 0:
			return fmt.Errorf("%w: its keys are out of order", errSnapshot)
		}
		last = full
		if err := fn(full, value); err != nil {
			return err
		}
	}
	return checkSum(h, last != nil)
}

func checkSum(h *hashedReader, any bool) error {
	want := h.sum.Sum(nil)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(h.r, got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%w: its checksum is wrong", errSnapshot)
	}
	if !any {
		return fmt.Errorf("%w: it has no applied index", errSnapshot)
	}
	return nil
}
