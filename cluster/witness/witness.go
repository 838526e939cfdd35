// Package witness keeps what this node has made durable in Raft's log and in the catalog, in a file apart, by
// which a start finds out that one of them is not what it was.
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
//
// consensus opens it before the databases, writes the catalog through FS and updates it after each write to
// the log. The log itself is compared by consensus, which can read it; files are compared by Open.
package witness

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// FileName is the witness's file in the data directory.
const FileName = "witness"

// The folders of the data directory that a sealed witness has all files of.
const (
	raftFolder    = "raft"
	catalogFolder = "catalog"
)

// Witness writes down what of the data directory is durable. Its methods are safe to call from many
// goroutines.
type Witness struct {
	root   string
	sealed bool // when it was opened

	mu    sync.Mutex
	file  *os.File
	known map[string]entry // by name
	free  []int64          // slots given up
	slots int64
}

// entry is a mark and the slot that it is in.
type entry struct {
	mark
	slot int64
}

// Open compares the files under root, the data directory, with what the last process left, and starts a new
// witness with what it found right. The error is a ChangedError when a file is not what it was, and a
// LostError when a whole folder is missing. What it knows of replicas is for the caller to compare: see Logs.
func Open(root string) (*Witness, error) {
	known, sealed, err := readSlots(filepath.Join(root, FileName))
	if err != nil {
		return nil, err
	}
	if sealed {
		if err = checkFolders(root); err == nil {
			err = checkNoOthers(root, known)
		}
	}
	for name, m := range known {
		if strings.HasPrefix(name, replicaPrefix) {
			continue
		}
		if err == nil {
			err = m.checkFile(root, name, sealed)
		}
		switch _, e := os.Stat(filepath.Join(root, name)); {
		case e != nil && !errors.Is(e, fs.ErrNotExist) && err == nil:
			err = e // it may be there, and must stay known
		case e != nil || !grows(name):
			delete(known, name)
		}
	}
	if err != nil {
		return nil, err
	}
	w := &Witness{root: root, sealed: sealed, known: map[string]entry{}}
	if err := writeSlots(root, known, false); err != nil {
		return nil, err
	}
	if w.file, err = os.OpenFile(filepath.Join(root, FileName), os.O_RDWR, 0); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(known)) { // as writeSlots has them
		w.slots++
		w.known[name] = entry{known[name], w.slots}
	}
	w.slots++
	return w, nil
}

// write writes a slot. The caller holds mu.
func (w *Witness) write(name string, m mark) error {
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

// update says that something is durable now. When it cannot be written down, what was written down
// before stays right.
func (w *Witness) update(name string, m mark) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file != nil {
		_ = w.write(name, m)
	}
}

// updateDurably says what is going to hold before it does.
func (w *Witness) updateDurably(name string, m mark) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	if err := w.write(name, m); err != nil {
		return err
	}
	return w.file.Sync()
}

// remove says that something is about to be removed. Where the same name may come again, or the end of
// replicas is not seen from their files, that must be durable first: after a loss of power the witness
// would speak against what is right.
func (w *Witness) remove(durably bool, names ...string) error {
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

// markOf returns what is known of something, all zero when that is nothing.
func (w *Witness) markOf(name string) mark {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known[name].mark
}

// marks returns all that is known.
func (w *Witness) marks() map[string]mark {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string]mark{}
	for name, n := range w.known {
		all[name] = n.mark
	}
	return all
}

// link says that a file has a second name.
func (w *Witness) link(old, name string) {
	w.mu.Lock()
	m, ok := w.known[old]
	w.mu.Unlock()
	if ok {
		w.update(name, m.mark)
	}
}

// Sealed reports whether the last process closed the witness as sealed: all files were compared.
func (w *Witness) Sealed() bool { return w.sealed }

// Close ends the witness. A sealed one has all files that are there, which the next start compares; nothing
// may write to them any more. A nil witness has nothing to close.
func (w *Witness) Close(seal bool) error {
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
		if strings.HasPrefix(name, replicaPrefix) {
			all[name] = m
		}
	}
	err = walk(w.root, func(name string) (err error) {
		if len(name) <= nameBytesMax {
			all[name], err = markOfFile(filepath.Join(w.root, name))
		}
		return err
	})
	if err != nil {
		return err
	}
	return writeSlots(w.root, all, true)
}
