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

func none(image.ID, uint32) (bool, error) { return false, nil }

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	var unknown []string
	s := openTest(t, dir, Options{OnUnknown: func(p string) { unknown = append(unknown, p) }})
	for epoch := range uint32(4) {
		mustPut(t, s, testID, epoch, noise(1, 100+int(epoch)))
	}
	w, err := s.Create(testID, 8, 10)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	strange := []string{
		"images/a2/notes.txt", "images/a3/" + testKey(1).String() + ".img", "images/tmp/readme",
	}
	for _, name := range append(strange, testKey(9).tmpPath(), "images/tmp/probe.tmp") {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 7), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	strangeDir := "images/a2/" + testKey(77).String() + ".img"
	os.Mkdir(filepath.Join(dir, strangeDir), 0o700)

	removed, bytes, err := s.Sweep(func(_ image.ID, epoch uint32) (bool, error) { return epoch < 2, nil })
	if want := int64(102 + 103 + 7 + 7); removed != 4 || bytes != want || err != nil {
		t.Errorf("removed %d files of %d bytes, %v; want 4 of %d", removed, bytes, err, want)
	}
	slices.Sort(unknown)
	if want := slices.Sorted(slices.Values(append(strange, strangeDir))); !slices.Equal(unknown, want) {
		t.Errorf("unknown %v, want %v", unknown, want)
	}
	expectFiles(t, dir, append(strange, testKey(0).path(), testKey(1).path(), testKey(8).tmpPath())...)
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

// TestSweepLeavesNewFiles: a file that becomes visible or is replaced during a sweep is not the one that keep
// was asked about, and stays.
func TestSweepLeavesNewFiles(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	mustPut(t, s, testID, 1, noise(1, 100))
	later := testID
	later[15] = 0xff // in a folder that the sweep has yet to list
	var open *Writer
	removed, _, err := s.Sweep(func(id image.ID, epoch uint32) (bool, error) {
		if id == testID && open == nil {
			mustPut(t, s, testID, 1, noise(2, 100)) // replaces the file in question
			mustPut(t, s, later, 1, noise(3, 100))
			mustPut(t, s, later, 2, noise(4, 100))
			var err error
			if open, err = s.Create(later, 2, 10); err != nil {
				t.Error(err)
			}
		}
		return false, nil
	})
	if removed != 0 || err != nil {
		t.Errorf("removed %d, %v", removed, err)
	}
	open.Abort()
	expectFiles(t, dir, testKey(1).path(), key{later, 1}.path(), key{later, 2}.path())
	if removed, _, err = s.Sweep(none); removed != 3 || err != nil {
		t.Errorf("the next sweep removed %d, %v; want 3", removed, err)
	}
}

// TestSweepStops: the first error of keep ends a sweep.
func TestSweepStops(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	for epoch := range uint32(3) {
		mustPut(t, s, testID, epoch, noise(1, 10))
	}
	stop := errors.New("no quorum")
	removed, bytes, err := s.Sweep(func(_ image.ID, epoch uint32) (bool, error) {
		if epoch == 1 {
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
	mustPut(t, s, testID, 1, noise(1, 10))
	full.names.put(testKey(2).tmpPath(), &memNode{})
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
		for _, name := range []string{testKey(2).tmpPath(), testKey(1).path()} {
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
	for epoch := range uint32(4) {
		mustPut(t, s, testID, epoch, noise(1, 100))
	}
	for _, epoch := range []uint32{1, 2} {
		if err := os.Remove(filepath.Join(dir, testKey(epoch).path())); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(filepath.Join(dir, testKey(3).path()), 40); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, testID, 2, noise(1, 100)) // as a repair does
	if _, _, err := s.Sweep(func(image.ID, uint32) (bool, error) { return true, nil }); err != nil {
		t.Fatal(err)
	}
	if files, bytes := s.Usage(); files != 3 || bytes != 240 {
		t.Errorf("%d files of %d bytes, want 3 of 240", files, bytes)
	}
}
