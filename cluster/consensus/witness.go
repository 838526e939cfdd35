package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/cespare/xxhash/v2"

	"imgcluster/cluster/durable"
	"imgcluster/cluster/image"
)

// WitnessName is the file in the data directory by which a start finds out that Raft's log or the
// catalog is not what it was.
//
// The databases of both cannot: where a write-ahead log or a manifest is damaged or cut they take that
// for a write which a crash interrupted, and go on without what came after. A node that so forgot
// entries and votes of which it had told others could help a minority to lose what was acknowledged.
// So the witness has
//
//   - of each replica the newest term, vote and entry that are durable in the log,
//   - of each file of the catalog that only grows, how long it was at its last fsync and a hash of that
//     much,
//   - after an orderly stop all files of both, with which it is sealed.
//
// It is written after each fsync, without one of its own: it outlasts the process, and after a loss of
// power it may know of less, but of nothing that is not so. What it cannot see is damage to what became
// durable after the newest state of the witness that did, when the power was lost then; and damage to
// something and to its own slot for it.
const WitnessName = "witness"

// The witness is a row of slots, each
//
//	CRC-32C of the rest              4 bytes, little endian
//	length of the name               2 bytes
//	0                                2 bytes
//	a mark: three numbers            24 bytes
//	name                             up to 224 bytes
//
// A file has its path in the data directory as the name, its length and xxHash64 as the mark. A replica
// is log/SHARD/REPLICA, with its last entry, term and vote. The first slot is the version's, and tells
// whether the witness is sealed. Slots that are not whole count for nothing: the node does without them.
const (
	slotBytes      = 256 // within one sector: written whole or not at all
	slotHeadBytes  = 32
	witnessVersion = "witness 1"
)

// mark is what the witness knows of something.
type mark [3]uint64

// witness writes the marks of what is under root. A nil one does nothing.
type witness struct {
	root   string
	sealed bool // when it was opened

	mu    sync.Mutex
	file  *os.File
	known map[string]noted // by name
	free  []int64          // slots given up
	slots int64
}

type noted struct {
	mark
	slot int64
}

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
	if binary.LittleEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) || n == 0 || n > slotBytes-slotHeadBytes {
		return "", m, false
	}
	for i := range m {
		m[i] = binary.LittleEndian.Uint64(b[8+8*i:])
	}
	return string(b[slotHeadBytes : slotHeadBytes+n]), m, true
}

// grows tells whether a file is one that is only appended to, under a name that no other file has
// before it is gone.
func grows(name string) bool {
	base := filepath.Base(name)
	return strings.HasSuffix(base, ".log") || strings.HasSuffix(base, ".sst") || strings.HasPrefix(base, "MANIFEST-")
}

// openWitness compares the files under root with what the last process left, and begins anew with
// what it found right. The error is ErrDamaged when a file is not what it was. What it knows of
// replicas is for expectLog.
func openWitness(root string) (*witness, error) {
	known, sealed, err := readWitness(filepath.Join(root, WitnessName))
	if err != nil {
		return nil, err
	}
	if sealed {
		if err = expectHalves(root); err == nil {
			err = expectNoOther(root, known)
		}
	}
	for name, m := range known {
		if strings.HasPrefix(name, logPrefix) {
			continue
		}
		if err == nil {
			err = m.expectFile(root, name, sealed)
		}
		switch _, e := os.Stat(filepath.Join(root, name)); {
		case e != nil && !errors.Is(e, fs.ErrNotExist) && err == nil:
			err = e // it may be there, and must not be forgotten
		case e != nil || !grows(name):
			delete(known, name)
		}
	}
	if err != nil {
		return nil, err
	}
	w := &witness{root: root, sealed: sealed, known: map[string]noted{}}
	if err := writeWitness(root, known, false); err != nil {
		return nil, err
	}
	if w.file, err = os.OpenFile(filepath.Join(root, WitnessName), os.O_RDWR, 0); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(known)) { // as writeWitness has them
		w.slots++
		w.known[name] = noted{known[name], w.slots}
	}
	w.slots++
	return w, nil
}

// readWitness returns the marks in a witness; none when there is no such file.
func readWitness(path string) (known map[string]mark, sealed bool, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // of a first start, or of a version before
	}
	known = map[string]mark{}
	for i := 0; i+slotBytes <= len(b); i += slotBytes {
		name, m, ok := decodeSlot(b[i : i+slotBytes])
		switch {
		case !ok:
		case i == 0:
			sealed = name == witnessVersion && m[0] == 1
		default:
			known[name] = m
		}
	}
	return known, sealed, err
}

// expectFile tells what is wrong with a file. One that is gone is wrong only when the witness is
// sealed: that it was removed is not always noted.
func (m mark) expectFile(root, name string, sealed bool) error {
	f, err := os.Open(filepath.Join(root, name))
	switch {
	case errors.Is(err, fs.ErrNotExist) && sealed:
		return errNotAsLeft(root, name, "is gone")
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	defer f.Close()
	now, err := markOf(io.LimitReader(f, int64(m[0])))
	if err != nil {
		return err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case now[0] < m[0]:
		return errNotAsLeft(root, name, fmt.Sprintf("was cut to %d bytes of %d", now[0], m[0]))
	case now != m || sealed && uint64(info.Size()) != m[0]:
		return errNotAsLeft(root, name, "was changed")
	}
	return nil
}

// markOf is the mark of a file with this content.
func markOf(r io.Reader) (mark, error) {
	sum := xxhash.New()
	n, err := io.Copy(sum, r)
	return mark{uint64(n), sum.Sum64()}, err
}

func markOfFile(path string) (mark, error) {
	f, err := os.Open(path)
	if err != nil {
		return mark{}, err
	}
	defer f.Close()
	return markOf(f)
}

func errNotAsLeft(root, name, what string) error {
	return image.Errorf(image.KindDamaged, "%s in %s %s since this node wrote it: %w", name, root, what, ErrDamaged).WithHint(replaceHint)
}

// expectHalves tells which of the folders is lost as a whole.
func expectHalves(root string) error {
	for folder, what := range map[string]string{"raft": "the Raft log", "catalog": "the catalog"} {
		if _, err := os.Stat(filepath.Join(root, folder)); errors.Is(err, fs.ErrNotExist) {
			return errHalfLost(root, what)
		}
	}
	return nil
}

// expectNoOther tells whether there is a file that a sealed witness does not know.
func expectNoOther(root string, known map[string]mark) error {
	return witnessed(root, func(name string) error {
		if _, ok := known[name]; !ok && len(name) <= slotBytes-slotHeadBytes {
			return errNotAsLeft(root, name, "was added")
		}
		return nil
	})
}

// witnessed calls fn with the name of each file that a sealed witness knows.
func witnessed(root string, fn func(name string) error) error {
	for _, folder := range []string{"raft", "catalog"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() || e.Name() == "LOCK" {
				return err
			}
			name, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			return fn(filepath.ToSlash(name))
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// writeWitness puts a new witness, durably, in the place of the one there is.
func writeWitness(root string, known map[string]mark, sealed bool) error {
	var head mark
	if sealed {
		head[0] = 1
	}
	b := encodeSlot(witnessVersion, head)
	for _, name := range slices.Sorted(maps.Keys(known)) {
		b = append(b, encodeSlot(name, known[name])...)
	}
	path := filepath.Join(root, WitnessName)
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

// name is a file's in the witness, empty when it has no mark there.
func (w *witness) name(path string) string {
	if !grows(path) {
		return ""
	}
	name, err := filepath.Rel(w.root, path)
	if err != nil || len(name) > slotBytes-slotHeadBytes {
		return ""
	}
	return filepath.ToSlash(name)
}

// put writes a slot. Held: mu.
func (w *witness) put(name string, m mark) error {
	at, ok := w.known[name]
	switch {
	case ok:
	case len(w.free) > 0:
		at.slot = w.free[len(w.free)-1]
		w.free = w.free[:len(w.free)-1]
	default:
		at.slot = w.slots
		w.slots++
	}
	at.mark = m
	w.known[name] = at
	_, err := w.file.WriteAt(encodeSlot(name, m), at.slot*slotBytes)
	return err
}

// note tells that something is durable now. When it cannot be written down, what was written down
// before stays right.
func (w *witness) note(name string, m mark) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file != nil {
		_ = w.put(name, m)
	}
}

// noteDurably tells what is going to hold before it does.
func (w *witness) noteDurably(name string, m mark) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	if err := w.put(name, m); err != nil {
		return err
	}
	return w.file.Sync()
}

// forget tells that something is about to go. Where the same name may come again, or the end of
// replicas is not seen from their files, that must be durable first: after a loss of power the witness
// would speak against what is right.
func (w *witness) forget(durably bool, names ...string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	cleared := false
	for _, name := range names {
		at, ok := w.known[name]
		if !ok || w.file == nil {
			continue
		}
		if _, err := w.file.WriteAt(make([]byte, slotBytes), at.slot*slotBytes); err != nil {
			return err
		}
		delete(w.known, name)
		w.free = append(w.free, at.slot)
		cleared = true
	}
	if cleared && durably {
		return w.file.Sync()
	}
	return nil
}

// mark returns what is known of something; all zero: nothing.
func (w *witness) mark(name string) mark {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known[name].mark
}

// marks returns all that is known.
func (w *witness) marks() map[string]mark {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string]mark{}
	for name, n := range w.known {
		all[name] = n.mark
	}
	return all
}

// same tells that a file has a second name.
func (w *witness) same(old, name string) {
	w.mu.Lock()
	m, ok := w.known[old]
	w.mu.Unlock()
	if ok {
		w.note(name, m.mark)
	}
}

// close ends the witness. Sealed, it has all that is there, which the next start compares.
func (w *witness) close(seal bool) error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	err := w.file.Close()
	w.file = nil
	w.mu.Unlock()
	if !seal || err != nil {
		return err
	}
	all := map[string]mark{}
	for name, m := range w.marks() {
		if strings.HasPrefix(name, logPrefix) {
			all[name] = m
		}
	}
	err = witnessed(w.root, func(name string) (err error) {
		if len(name) <= slotBytes-slotHeadBytes {
			all[name], err = markOfFile(filepath.Join(w.root, name))
		}
		return err
	})
	if err != nil {
		return err
	}
	return writeWitness(w.root, all, true)
}
