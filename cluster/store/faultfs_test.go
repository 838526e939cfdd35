package store

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
	"sync"
)

// faultFS passes operations on to another fileSystem, records them, and fails the chosen ones.
// Without failAt, skip and before it only records.
type faultFS struct {
	fileSystem
	mu     sync.Mutex // ops, while operations run
	ops    []string
	failAt int  // number of the operation that fails, from 1; 0: none
	onward bool // all operations from failAt on fail: the power is off
	late   bool // the operation takes effect and fails nevertheless
	err    error
	skip   string       // operations of this name succeed without any effect: a seeded bug
	before func(string) // called with each operation's line
}

// do records one operation and passes, fails or skips it.
func (f *faultFS) do(op, args string, call func() error) error {
	line := strings.TrimSpace(op + " " + args)
	f.mu.Lock()
	f.ops = append(f.ops, line)
	n := len(f.ops)
	f.mu.Unlock()
	if f.before != nil {
		f.before(line)
	}
	fails := f.failAt > 0 && (n == f.failAt || f.onward && n > f.failAt)
	if op == f.skip {
		return nil
	}
	if fails && !f.late {
		return f.err
	}
	err := call()
	if fails {
		return f.err
	}
	return err
}

// count returns the number of recorded operations of that name.
func (f *faultFS) count(op string) (n int) {
	for _, line := range f.ops {
		if name, _, _ := strings.Cut(line, " "); name == op {
			n++
		}
	}
	return n
}

// reset forgets the recorded operations and sets which of the next ones fails, and how.
func (f *faultFS) reset(failAt int, err error) {
	f.ops = nil
	f.failAt = failAt
	f.err = err
}

var folderName = regexp.MustCompile(`images/[0-9a-f]{2}$`)

// text returns the operations, one a line; the same operation on many folders in turn is one line.
func (f *faultFS) text() string {
	var b strings.Builder
	for i := 0; i < len(f.ops); {
		line := folderName.ReplaceAllString(f.ops[i], "images/xx")
		n := 1
		for i+n < len(f.ops) && folderName.ReplaceAllString(f.ops[i+n], "images/xx") == line {
			n++
		}
		if n > 1 {
			fmt.Fprintf(&b, "%s (%d times)\n", line, n)
		} else {
			fmt.Fprintln(&b, f.ops[i])
		}
		i += n
	}
	return b.String()
}

func (f *faultFS) mkdir(name string) error {
	return f.do("mkdir", name, func() error { return f.fileSystem.mkdir(name) })
}

func (f *faultFS) rename(from, to string) error {
	return f.do("rename", from+" "+to, func() error { return f.fileSystem.rename(from, to) })
}

func (f *faultFS) remove(name string) error {
	return f.do("remove", name, func() error { return f.fileSystem.remove(name) })
}

func (f *faultFS) syncDir(name string) error {
	return f.do("syncdir", name, func() error { return f.fileSystem.syncDir(name) })
}

func (f *faultFS) stat(name string) (size int64, err error) {
	err = f.do("stat", name, func() error { size, err = f.fileSystem.stat(name); return err })
	return size, err
}

func (f *faultFS) free() (n freeSpace, err error) {
	err = f.do("free", "", func() error { n, err = f.fileSystem.free(); return err })
	return n, err
}

func (f *faultFS) readDir(name string, sizes bool, fn func([]entry) error) error {
	var failed error // fn's
	err := f.do("readdir", name, func() error {
		return f.fileSystem.readDir(name, sizes, func(batch []entry) error {
			failed = fn(batch)
			return failed
		})
	})
	return cmp.Or(failed, err)
}

func (f *faultFS) open(name string, uncached bool) (r readFile, size int64, err error) {
	err = f.do("open", name, func() error { r, size, err = f.fileSystem.open(name, uncached); return err })
	return r, size, err
}

func (f *faultFS) create(name string, direct bool) (file, error) {
	mode := ""
	if direct {
		mode = " direct"
	}
	var inner file
	err := f.do("create", name+mode, func() (err error) {
		inner, err = f.fileSystem.create(name, direct)
		return err
	})
	if err != nil {
		if inner != nil {
			inner.close()
		}
		return nil, err
	}
	return &faultFile{f, inner}, nil
}

type faultFile struct {
	fs *faultFS
	f  file
}

func (f *faultFile) allocate(size int64) error {
	return f.fs.do("allocate", fmt.Sprint(size), func() error { return f.f.allocate(size) })
}

func (f *faultFile) write(p []byte) error {
	return f.fs.do("write", fmt.Sprint(len(p)), func() error { return f.f.write(p) })
}

func (f *faultFile) writeBack(off, n int64) error {
	return f.fs.do("writeback", fmt.Sprint(off, n), func() error { return f.f.writeBack(off, n) })
}

func (f *faultFile) endDirect() error { return f.fs.do("enddirect", "", f.f.endDirect) }
func (f *faultFile) sync() error      { return f.fs.do("fsync", "", f.f.sync) }

// close closes the real file in any case, so that tests leak no descriptors.
func (f *faultFile) close() error {
	closed := false
	err := f.fs.do("close", "", func() error {
		closed = true
		return f.f.close()
	})
	if !closed {
		f.f.close()
	}
	return err
}

func openStore(fsys fileSystem, opts Options) (*Store, error) {
	s := newStore(fsys, opts)
	return s, s.open()
}
