package witness

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"imgcluster/cluster/durable"
)

// The witness is a row of slots, each
//
//	CRC-32C of the rest              4 bytes, little endian
//	length of the name               2 bytes
//	0                                2 bytes
//	a mark: three numbers            24 bytes
//	name                             up to 224 bytes
//
// A file has its path in the data directory as the name, its length and xxHash64 as the mark. A replica
// is log/SHARD/REPLICA, with its last entry, term and vote. The first slot is the version's, and says
// whether the witness is sealed. Slots that are not whole count for nothing: the node does without them.
const (
	slotBytes     = 256 // within one sector: written whole or not at all
	slotHeadBytes = 32
	nameBytesMax  = slotBytes - slotHeadBytes
	format        = "witness "
	version       = format + "1"
)

// ErrFormat is the error of a witness of another version.
var ErrFormat = errors.New("the witness has another format")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// mark is what the witness knows of something.
type mark [3]uint64

func encodeSlot(name string, m mark) []byte {
	b := make([]byte, slotBytes)
	binary.LittleEndian.PutUint16(b[4:], uint16(len(name)))
	for i, n := range m {
		binary.LittleEndian.PutUint64(b[8+8*i:], n)
	}
	copy(b[slotHeadBytes:], name)
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	return b
}

func decodeSlot(b []byte) (name string, m mark, ok bool) {
	n := int(binary.LittleEndian.Uint16(b[4:]))
	whole := binary.LittleEndian.Uint32(b) == crc32.Checksum(b[4:], castagnoli)
	if !whole || n == 0 || n > nameBytesMax {
		return "", m, false
	}
	for i := range m {
		m[i] = binary.LittleEndian.Uint64(b[8+8*i:])
	}
	return string(b[slotHeadBytes : slotHeadBytes+n]), m, true
}

// readSlots returns the marks in a witness; none when there is no such file.
func readSlots(path string) (known map[string]mark, sealed bool, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // of a first start, or of a version before
	}
	known = map[string]mark{}
	for i := 0; i+slotBytes <= len(b); i += slotBytes {
		name, m, ok := decodeSlot(b[i : i+slotBytes])
		switch {
		case !ok:
		case i == 0 && strings.HasPrefix(name, format) && name != version:
			return nil, false, fmt.Errorf("%w: %s is %q, this program knows %q", ErrFormat, path, name, version)
		case i == 0:
			sealed = name == version && m[0] == 1
		default:
			known[name] = m
		}
	}
	return known, sealed, err
}

// writeSlots puts a new witness, durably, in the place of the one there is.
func writeSlots(root string, known map[string]mark, sealed bool) error {
	var head mark
	if sealed {
		head[0] = 1
	}
	b := encodeSlot(version, head)
	for _, name := range slices.Sorted(maps.Keys(known)) {
		b = append(b, encodeSlot(name, known[name])...)
	}
	path := filepath.Join(root, FileName)
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err == nil {
		err = durable.SyncDir(root)
	}
	return err
}
