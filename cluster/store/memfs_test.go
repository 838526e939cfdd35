package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
)

// memFS is a file system in memory that knows what was synced. Names and contents become durable apart, as
// in POSIX: a file's fsync makes its content durable, its directory's fsync its name.
type memFS struct {
	names, durable memTree
	freeBytes      int64
}

// memTree is the content of each directory, by the directory's path and then by name.
type memTree map[string]map[string]*memNode

// memNode is a file, or a directory when dir is set.
type memNode struct {
	dir          bool
	data, synced []byte
}

func newMemFS() *memFS {
	return &memFS{names: memTree{".": {}}, durable: memTree{".": {}}, freeBytes: 1 << 40}
}

func (t memTree) at(name string) *memNode { return t[path.Dir(name)][path.Base(name)] }

func (t memTree) put(name string, n *memNode) {
	t[path.Dir(name)][path.Base(name)] = n
	if n.dir && t[name] == nil {
		t[name] = map[string]*memNode{}
	}
}

// crash returns what is left after a power loss. keepName and keepData choose what is left of what was not
// synced.
func (m *memFS) crash(keepName func(string) bool, keepData bool) *memFS {
	after := newMemFS()
	for _, dir := range slices.Sorted(maps.Keys(m.names)) { // parents first; in order, for random choices
		if after.names[dir] == nil {
			continue // lost with its directory
		}
		either := maps.Clone(m.names[dir])
		maps.Copy(either, m.durable[dir])
		for _, base := range slices.Sorted(maps.Keys(either)) {
			n := m.durable[dir][base]
			if live := m.names[dir][base]; live != n && keepName(base) {
				n = live
			}
			if n == nil {
				continue
			}
			left := n.synced
			if keepData {
				left = n.data
			}
			c := &memNode{n.dir, slices.Clone(left), slices.Clone(left)}
			after.names.put(path.Join(dir, base), c)
			after.durable.put(path.Join(dir, base), c)
		}
	}
	return after
}

// clone returns a copy.
func (m *memFS) clone() *memFS { return m.crash(func(string) bool { return true }, true) }

func (m *memFS) get(name string) (*memNode, error) {
	if n := m.names.at(name); n != nil {
		return n, nil
	}
	return nil, &fs.PathError{Op: "get", Path: name, Err: fs.ErrNotExist}
}

// parent returns an error when name's directory does not exist.
func (m *memFS) parent(name string) error {
	if m.names[path.Dir(name)] == nil {
		return &fs.PathError{Op: "get", Path: name, Err: fs.ErrNotExist}
	}
	return nil
}

func (m *memFS) mkdir(name string) error {
	if m.names.at(name) != nil {
		return fs.ErrExist
	}
	if err := m.parent(name); err != nil {
		return err
	}
	m.names.put(name, &memNode{dir: true})
	return nil
}

func (m *memFS) rename(from, to string) error {
	n, err := m.get(from)
	if err != nil {
		return err
	}
	if err := m.parent(to); err != nil {
		return err
	}
	m.names.put(to, n)
	return m.remove(from)
}

func (m *memFS) remove(name string) error {
	_, err := m.get(name)
	delete(m.names[path.Dir(name)], path.Base(name))
	return err
}

func (m *memFS) syncDir(name string) error {
	if m.names[name] == nil {
		return fs.ErrNotExist
	}
	m.durable[name] = map[string]*memNode{}
	for base, n := range m.names[name] {
		m.durable.put(path.Join(name, base), n)
	}
	return nil
}

func (m *memFS) readDir(name string, _ bool, fn func([]entry) error) error {
	if m.names[name] == nil {
		return fs.ErrNotExist
	}
	var list []entry
	for base, n := range m.names[name] {
		list = append(list, entry{base, int64(len(n.data)), n.dir})
	}
	slices.SortFunc(list, byName)
	for batch := range slices.Chunk(list, dirBatch) {
		if err := fn(batch); err != nil {
			return err
		}
	}
	return nil
}

func (m *memFS) stat(name string) (int64, error) {
	n, err := m.get(name)
	if err != nil {
		return 0, err
	}
	return int64(len(n.data)), nil
}

type memReader struct{ *bytes.Reader }

func (memReader) Close() error { return nil }

func (m *memFS) open(name string, _ bool) (readFile, int64, error) {
	n, err := m.get(name)
	if err != nil {
		return nil, 0, err
	}
	return memReader{bytes.NewReader(n.data)}, int64(len(n.data)), nil
}

func (m *memFS) create(name string, direct bool) (file, error) {
	if err := m.parent(name); err != nil {
		return nil, err
	}
	n := m.names.at(name)
	if n == nil {
		n = &memNode{}
		m.names.put(name, n)
	}
	n.data = nil
	return &memWriter{n: n, direct: direct}, nil
}

func (m *memFS) canDirect(string) bool    { return true }
func (m *memFS) free() (freeSpace, error) { return freeSpace{m.freeBytes, NoInodeLimit}, nil }
func (m *memFS) close() error             { return nil }

// memWriter refuses direct writes that are not aligned.
type memWriter struct {
	n      *memNode
	at     int
	direct bool
}

var errAlign = errors.New("direct write is not aligned")

func (w *memWriter) write(p []byte) error {
	if w.direct && (len(p)%alignBytes != 0 || w.at%alignBytes != 0) {
		return fmt.Errorf("%w: %d bytes at %d", errAlign, len(p), w.at)
	}
	if more := w.at + len(p) - len(w.n.data); more > 0 {
		w.n.data = append(w.n.data, make([]byte, more)...)
	}
	w.at += copy(w.n.data[w.at:], p)
	return nil
}

func (w *memWriter) allocate(size int64) error    { w.n.data = make([]byte, size); return nil }
func (w *memWriter) writeBack(int64, int64) error { return nil }
func (w *memWriter) endDirect() error             { w.direct = false; return nil }
func (w *memWriter) sync() error                  { w.n.synced = slices.Clone(w.n.data); return nil }
func (w *memWriter) close() error                 { return nil }
