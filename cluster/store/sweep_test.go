package store

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"imgcluster/cluster/image"
)

func none(image.FileID) (bool, error) { return false, nil }

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	var unknown []string
	s := openTest(t, dir, Options{OnUnknown: func(p string) { unknown = append(unknown, p) }})
	for n := range uint32(4) {
		mustPut(t, s, testFile(n), noise(1, 100+int(n)))
	}
	w, err := s.Create(testFile(8), 10)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	strange := []string{
		"images/a2/notes.txt", "images/a3/" + testFile(1).String() + ".img", "images/tmp/readme",
	}
	for _, name := range append(strange, tmpPathOf(testFile(9)), "images/tmp/probe.tmp") {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 7), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	strangeDir := "images/a2/" + testFile(77).String() + ".img"
	os.Mkdir(filepath.Join(dir, strangeDir), 0o700)

	removed, bytes, err := s.Sweep(func(f image.FileID) (bool, error) { return number(f) < 2, nil })
	if want := int64(102 + 103 + 7 + 7); removed != 4 || bytes != want || err != nil {
		t.Errorf("removed %d files of %d bytes, %v; want 4 of %d", removed, bytes, err, want)
	}
	slices.Sort(unknown)
	if want := slices.Sorted(slices.Values(append(strange, strangeDir))); !slices.Equal(unknown, want) {
		t.Errorf("unknown %v, want %v", unknown, want)
	}
	expectFiles(t, dir, append(strange, PathOf(testFile(0)), PathOf(testFile(1)), tmpPathOf(testFile(8)))...)
	if files, bytes := s.Usage(); files != 2 || bytes != 201 {
		t.Errorf("usage %d files, %d bytes", files, bytes)
	}
	if _, err := w.Write(noise(1, 10)); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Error("the sweep disturbed a Writer:", err)
	}
}

// TestSweepLeavesNewFiles: a file that becomes visible during a sweep stays, whatever keep says of it.
func TestSweepLeavesNewFiles(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	mustPut(t, s, testFile(1), noise(1, 100))
	later := newFile()
	later.Image[3], later.Image[4] = 0xff, 0xff // in a folder that the sweep has yet to list
	removed, _, err := s.Sweep(func(f image.FileID) (bool, error) {
		if f == testFile(1) {
			mustPut(t, s, testFile(2), noise(2, 100))
			mustPut(t, s, later, noise(3, 100))
		}
		return false, nil
	})
	if removed != 1 || err != nil {
		t.Errorf("removed %d, %v; want 1", removed, err)
	}
	expectFiles(t, dir, PathOf(testFile(2)), PathOf(later))
	if removed, _, err = s.Sweep(none); removed != 2 || err != nil {
		t.Errorf("the next sweep removed %d, %v; want 2", removed, err)
	}
}

// TestSweepStops: the first error of keep ends a sweep.
func TestSweepStops(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	for n := range uint32(3) {
		mustPut(t, s, testFile(n), noise(1, 10))
	}
	stop := errors.New("no quorum")
	removed, bytes, err := s.Sweep(func(f image.FileID) (bool, error) {
		if number(f) == 1 {
			return false, stop
		}
		return false, nil
	})
	if removed != 1 || bytes != 10 || !errors.Is(err, stop) {
		t.Errorf("removed %d files of %d bytes, %v; want the first and keep's error", removed, bytes, err)
	}
}

// TestFailEachSweep fails each operation of a sweep in turn; the next sweep removes the rest.
func TestFailEachSweep(t *testing.T) {
	full := newMemFS()
	s, err := openStore(full, Options{})
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, testFile(1), noise(1, 10))
	full.names.put(tmpPathOf(testFile(2)), &memNode{})
	for i := 1; ; i++ {
		mem := full.clone()
		f := &faultFS{fileSystem: mem}
		s, err := openStore(f, Options{})
		if err != nil {
			t.Fatal(err)
		}
		f.reset(i, syscall.EIO)
		if _, _, err = s.Sweep(none); err == nil {
			if i < foldersCount {
				t.Errorf("only %d operations failed", i-1)
			}
			return
		}
		expectError(t, err, image.KindInternal)
		f.reset(0, nil)
		if _, _, err = s.Sweep(none); err != nil {
			t.Fatal(err)
		}
		if files, bytes := s.Usage(); files != 0 || bytes != 0 {
			t.Fatalf("after operation %d failed the next sweep left %d files of %d bytes", i, files, bytes)
		}
		for _, name := range []string{tmpPathOf(testFile(2)), PathOf(testFile(1))} {
			if mem.names.at(name) != nil {
				t.Fatalf("after operation %d failed the next sweep left %s", i, name)
			}
		}
	}
}

// TestSweepCounts: files that somebody else removed or truncated are counted right after a sweep.
func TestSweepCounts(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	for n := range uint32(4) {
		mustPut(t, s, testFile(n), noise(1, 100))
	}
	for _, n := range []uint32{1, 2} {
		if err := os.Remove(filepath.Join(dir, PathOf(testFile(n)))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(filepath.Join(dir, PathOf(testFile(3))), 40); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, testFile(5), noise(1, 100))
	if _, _, err := s.Sweep(func(image.FileID) (bool, error) { return true, nil }); err != nil {
		t.Fatal(err)
	}
	if files, bytes := s.Usage(); files != 3 || bytes != 240 {
		t.Errorf("%d files of %d bytes, want 3 of 240", files, bytes)
	}
}
