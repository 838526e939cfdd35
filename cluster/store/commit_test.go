package store

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"imgcluster/cluster/image"
)

// openFault opens a store on the real file system through a faultFS that has recorded nothing yet.
func openFault(t *testing.T, dir string, opts Options) (*Store, *faultFS) {
	t.Helper()
	inner, err := openOS(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := &faultFS{fileSystem: inner}
	s, err := openStore(f, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	f.reset(0, nil)
	return s, f
}

const goldenSize = 2*directBytes + 3*alignBytes + 10

// TestGoldenOperations holds the order of the operations, on which durability rests.
// `go test -run Golden -update` remakes the file.
func TestGoldenOperations(t *testing.T) {
	mem := newMemFS()
	f := &faultFS{fileSystem: mem}
	var out strings.Builder
	section := func(title string, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(title, err)
		}
		out.WriteString("# " + title + "\n" + f.text() + "\n")
		f.reset(0, nil)
	}
	_, err := openStore(f, Options{})
	section("first open", err)
	s, err := openStore(f, Options{})
	section("later open", err)
	section("commit, direct", put(s, testFile(1), noise(1, goldenSize)))
	section("commit, small", put(s, testFile(5), noise(1, smallBytes)))
	s.direct = false
	section("commit, buffered", put(s, testFile(2), noise(1, writeBackBytes+10)))
	w, err := s.Create(testFile(3), 100)
	if err == nil {
		err = w.Abort()
	}
	section("abort", err)
	section("remove", s.Remove(testFile(1)))
	mem.names.put(tmpPathOf(testFile(4)), &memNode{})
	_, _, err = s.Sweep(func(image.FileID) (bool, error) { return false, nil })
	section("sweep", err)
	_, err = firstStart(f, "dir", Identity{Cluster: "c", Node: 1})
	f.ops[1] = "write (json)" // its length may change
	section("first start of a data directory", err)

	const golden = "testdata/commit_ops.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("operations changed (-update accepts them):\n%s", out.String())
	}
}

// TestFailEachOperation fails each operation of a commit in turn on the real file system, before and after
// it takes effect.
func TestFailEachOperation(t *testing.T) {
	for _, c := range []operationFailure{
		{"EIO", Options{}, syscall.EIO, image.KindInternal, false},
		{"EIO done", Options{}, syscall.EIO, image.KindInternal, true},
		{"EIO buffered", Options{Buffered: true}, syscall.EIO, image.KindInternal, false},
		{"ENOSPC", Options{}, syscall.ENOSPC, image.KindDiskFull, false},
		{"EDQUOT done", Options{}, syscall.EDQUOT, image.KindDiskFull, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			i := 1
			dir := t.TempDir()
			for ; c.failOperation(t, dir, i); i++ {
			}
			if i < 10 {
				t.Errorf("only %d operations failed", i-1)
			}
		})
	}
}

// operationFailure is how an operation fails and the kind of error that is expected.
type operationFailure struct {
	name string
	opts Options
	err  error
	kind image.Kind
	late bool // the operation takes effect all the same
}

// failOperation fails operation i of a commit. It returns false when there is no such operation.
func (c operationFailure) failOperation(t *testing.T, dir string, i int) bool {
	s, f := openFault(t, dir, c.opts)
	f.late = c.late
	f.reset(i, c.err)
	size := directBytes + alignBytes + 10
	if c.opts.Buffered {
		size = writeBackBytes
	}
	data := noise(uint64(i), size)
	err := put(s, testFile(uint32(i)), data)
	got, openErr := get(s, testFile(uint32(i)))
	if err == nil {
		if len(f.ops) >= i && f.ops[i-1] != "open "+PathOf(testFile(uint32(i))) {
			t.Fatalf("operation %d, %s, failed without an error", i, f.ops[i-1])
		}
		return false
	}
	op := f.ops[i-1]
	if !errors.Is(err, c.err) || image.KindOf(err) != c.kind {
		t.Errorf("%s: error %v of kind %s, want %v of kind %s", op, err, image.KindOf(err), c.err, c.kind)
	}
	visible := strings.HasPrefix(op, "syncdir") || c.late && strings.HasPrefix(op, "rename")
	if visible != (openErr == nil) {
		t.Errorf("%s: visible is %v, want %v", op, openErr == nil, visible)
	}
	if visible && !bytes.Equal(got, data) {
		t.Errorf("%s: the visible file has other bytes", op)
	}
	if n := f.count("fsync"); n > 1 {
		t.Errorf("%s: fsync was called %d times", op, n)
	}
	expectFailed(t, s, op, c.kind)
	expectSweptEmpty(t, dir, op)
	return true
}

// expectFailed expects that a store whose disk is in doubt acknowledges nothing more.
func expectFailed(t *testing.T, s *Store, op string, kind image.Kind) {
	t.Helper()
	failed := s.Failed()
	if want := kind != image.KindDiskFull || strings.HasPrefix(op, "syncdir"); want != (failed != nil) {
		t.Errorf("%s: Failed is %v", op, failed)
	}
	if failed == nil {
		return
	}
	if _, err := s.Create(newFile(), 10); !errors.Is(err, failed) {
		t.Errorf("%s: Create on a failed store: %v", op, err)
	}
}

// expectSweptEmpty expects that a sweep after a restart leaves no file.
func expectSweptEmpty(t *testing.T, dir, op string) {
	t.Helper()
	s := openTest(t, dir, Options{})
	if _, _, err := s.Sweep(func(image.FileID) (bool, error) { return false, nil }); err != nil {
		t.Errorf("%s: sweep: %v", op, err)
	}
	if files, bytes := s.Usage(); files != 0 || bytes != 0 {
		t.Errorf("%s: %d files of %d bytes after the sweep", op, files, bytes)
	}
	expectFiles(t, dir)
}

// TestFailEachOpen fails each operation of opening a store in turn; after it the store opens.
func TestFailEachOpen(t *testing.T) {
	for i := 1; ; i++ {
		f := &faultFS{fileSystem: newMemFS(), failAt: i, err: syscall.EIO}
		_, err := openStore(f, Options{})
		if err == nil {
			if i < foldersCount {
				t.Errorf("only %d operations failed", i-1)
			}
			return
		}
		expectError(t, err, image.KindInternal)
		f.reset(0, nil)
		if _, err := openStore(f, Options{}); err != nil {
			t.Fatalf("opening again after operation %d failed: %v", i, err)
		}
	}
}

// TestNoAcknowledgementAfterFailure: a commit that ends after another Writer's directory fsync failed must
// not be acknowledged: the kernel reports a lost directory write once.
func TestNoAcknowledgementAfterFailure(t *testing.T) {
	s, f := openFault(t, t.TempDir(), Options{})
	w, err := s.Create(testFile(1), 10)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	w.Write(noise(1, 10))
	f.before = func(op string) {
		if strings.HasPrefix(op, "syncdir") {
			_ = s.fault(opSyncDir, "another", syscall.EIO)
		}
	}
	if err := w.Commit(); err == nil || !errors.Is(err, s.Failed()) {
		t.Errorf("Commit returned %v, Failed is %v", err, s.Failed())
	}
}

// TestScarce: too few file descriptors refuse one upload and do not fail the store.
func TestScarce(t *testing.T) {
	s, f := openFault(t, t.TempDir(), Options{})
	f.reset(2, syscall.EMFILE)
	_, err := s.Create(testFile(1), 10)
	expectError(t, err, image.KindOverload)
	if s.Failed() != nil {
		t.Error("too many open files failed the node:", s.Failed())
	}
	f.reset(0, nil)
	mustPut(t, s, testFile(1), noise(1, 10))
}

// TestShortageIsNoFailure: a file that could not be opened or made for want of descriptors says nothing
// about the disk. The upload fails and the next one succeeds.
func TestShortageIsNoFailure(t *testing.T) {
	for i := 1; ; i++ {
		s, f := openFault(t, t.TempDir(), Options{})
		f.reset(i, notOpened{&fs.PathError{Op: "openat", Path: "x", Err: syscall.EMFILE}})
		err := put(s, testFile(1), noise(1, 100))
		if err == nil {
			if i < 8 {
				t.Errorf("only %d operations failed", i-1)
			}
			return
		}
		var e *image.Error
		if !errors.As(err, &e) || e.Kind != image.KindOverload || s.Failed() != nil {
			t.Fatalf("%s: %v (%s), and Failed is %v", f.ops[i-1], err, image.KindOf(err), s.Failed())
		}
		if !strings.Contains(e.Hint(), "ulimit -n") {
			t.Errorf("%s: the hint is %q", f.ops[i-1], e.Hint())
		}
		f.reset(0, nil)
		if err := put(s, testFile(2), noise(1, 100)); err != nil {
			t.Errorf("%s: and then %v", f.ops[i-1], err)
		}
	}
}
