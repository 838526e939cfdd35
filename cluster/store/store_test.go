package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"imgcluster/cluster/image"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// testID is the same in every run, for golden files.
var testID = image.ID{
	0x01, 0x90, 0xb6, 0xa0, 0x7c, 0x1e, 0x7c, 0xc0, 0xa1, 0xf4, 0x5d, 0x6e, 0x7f, 0x80, 0x91, 0xa2,
}

// noise returns n bytes that differ from block to block.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

func openTest(t testing.TB, dir string, opts Options) *Store {
	t.Helper()
	s, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// put stores data and returns the first error.
func put(s *Store, id image.FileID, data []byte) error {
	w, err := s.Create(id, int64(len(data)))
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.Write(data); err != nil {
		return err
	}
	return w.Commit()
}

func mustPut(t testing.TB, s *Store, id image.FileID, data []byte) {
	t.Helper()
	if err := put(s, id, data); err != nil {
		t.Fatal(err)
	}
}

// get reads a whole file.
func get(s *Store, id image.FileID) ([]byte, error) {
	f, err := s.Open(id)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
}

// expectError expects an error of the kind, with a hint unless it is internal.
func expectError(t testing.TB, err error, kind image.Kind) {
	t.Helper()
	var e *image.Error
	if !errors.As(err, &e) || e.Kind != kind {
		t.Fatalf("error %v of kind %q, want kind %q", err, image.KindOf(err), kind)
	}
	if e.Hint() == "" && kind != image.KindInternal {
		t.Errorf("error %q has no hint", err)
	}
}

func TestRoundTrip(t *testing.T) {
	sizes := []int{
		1, alignBytes - 1, alignBytes, alignBytes + 1, directBytes - 1, directBytes, directBytes + 1,
		writeBackBytes + alignBytes, 3*directBytes + 12345,
	}
	for _, buffered := range []bool{false, true} {
		s := openTest(t, t.TempDir(), Options{Buffered: buffered})
		if buffered && s.direct {
			t.Error("Buffered was not honoured")
		}
		for i, size := range sizes {
			for k, chunk := range []int{size, 77777, 77777, beyondBytes, directBytes + 28} {
				data := noise(uint64(i), size)
				id := newFile()
				w, err := s.Create(id, int64(size))
				if err != nil {
					t.Fatal(err)
				}
				for part := range slices.Chunk(data, chunk) {
					if k%2 == 1 { // in place, where there is room for it
						part = append(w.AvailableBuffer(), part...)
					}
					if n, err := w.Write(part); n != len(part) || err != nil {
						t.Fatal(n, err)
					}
				}
				if err := w.Commit(); err != nil {
					t.Fatal(err)
				}
				if got, err := get(s, id); err != nil || !bytes.Equal(got, data) {
					t.Fatalf("buffered %v, %d bytes in chunks of %d: read back %d bytes, %v",
						buffered, size, chunk, len(got), err)
				}
			}
		}
	}
}

func TestUsageAndRemove(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	want := map[image.FileID]int64{}
	for i := range 20 {
		k := newFile()
		want[k] = int64(1000 + i)
		mustPut(t, s, k, noise(uint64(i), 1000+i))
	}
	check := func(s *Store) {
		t.Helper()
		got := map[image.FileID]bool{}
		_, _, err := s.Sweep(func(f image.FileID) (bool, error) { got[f] = true; return true, nil })
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Errorf("%d files, want %d", len(got), len(want))
		}
		sum := int64(0)
		for k, n := range want {
			if sum += n; !got[k] {
				t.Errorf("%v is missing", k)
			}
		}
		if files, bytes := s.Usage(); files != int64(len(want)) || bytes != sum {
			t.Errorf("usage %d files, %d bytes; want %d, %d", files, bytes, len(want), sum)
		}
	}
	check(s)
	for k := range want {
		delete(want, k)
		for range 2 { // the second time there is none
			if err := s.Remove(k); err != nil {
				t.Fatal(err)
			}
		}
		if len(want) == 10 {
			break
		}
	}
	check(s)
	check(openTest(t, dir, Options{}))
}

// TestFilesStayAsTheyAre: a file is written once, and one that is open stays readable when it is removed.
func TestFilesStayAsTheyAre(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	old := noise(1, 5000)
	mustPut(t, s, testFile(3), old)
	f, err := s.Open(testFile(3))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	expectError(t, put(s, testFile(3), noise(2, 7000)), image.KindConflict)
	if got, err := get(s, testFile(3)); err != nil || !bytes.Equal(got, old) {
		t.Errorf("read %d bytes, %v; want the first file", len(got), err)
	}
	if files, bytes := s.Usage(); files != 1 || bytes != 5000 || s.Failed() != nil {
		t.Errorf("usage %d files, %d bytes; Failed is %v", files, bytes, s.Failed())
	}
	if err := s.Remove(testFile(3)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	if err != nil || !bytes.Equal(got, old) {
		t.Errorf("the open file changed: %d bytes, %v", len(got), err)
	}
}

// TestIDInTwoShards: an upload ID that was used in two shards is two uploads.
func TestIDInTwoShards(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	other := testFile(1)
	other.Shard = 3
	for _, f := range []image.FileID{testFile(1), testFile(2), other} {
		mustPut(t, s, f, noise(1, 10))
	}
	if err := errors.Join(s.Remove(testFile(1)), s.Remove(testFile(2))); err != nil {
		t.Fatal(err)
	}
	if _, err := get(s, other); err != nil {
		t.Error("the other shard's file:", err)
	}
}

func TestBadCalls(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	for _, size := range []int64{0, -1} {
		_, err := s.Create(testFile(1), size)
		expectError(t, err, image.KindInvalid)
	}
	_, err := s.Open(testFile(1))
	expectError(t, err, image.KindNotFound)

	w, err := s.Create(testFile(1), 10)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Create(testFile(1), 10)
	expectError(t, err, image.KindConflict)
	if _, err := w.Write(make([]byte, 9)); err != nil {
		t.Fatal(err)
	}
	expectError(t, w.Commit(), image.KindIncomplete)
	_, err = w.Write(make([]byte, 1)) // the failure is final
	expectError(t, err, image.KindIncomplete)
	if err := w.Abort(); err != nil {
		t.Fatal(err)
	}

	if w, err = s.Create(testFile(1), 10); err != nil {
		t.Fatal("after Abort the name is free again:", err)
	}
	_, err = w.Write(make([]byte, 11))
	expectError(t, err, image.KindInternal)
	expectError(t, w.Commit(), image.KindInternal)
	w.Abort()
	expectError(t, w.Commit(), image.KindInternal)

	mustPut(t, s, testFile(1), noise(1, 10))
	if n, _ := s.Usage(); n != 1 || s.Failed() != nil {
		t.Errorf("%d files, failed: %v; want 1 file on a healthy store", n, s.Failed())
	}
	expectFiles(t, dir, PathOf(testFile(1)))
}

func TestEndedWriter(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	w, err := s.Create(testFile(1), 3)
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("abc"))
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := w.Abort(); err != nil {
		t.Fatal(err)
	}
	expectError(t, w.Commit(), image.KindInternal)
	if got, err := get(s, testFile(1)); string(got) != "abc" || err != nil {
		t.Errorf("Abort after Commit: %q, %v", got, err)
	}
}

// testFile returns a file of the upload testID; the same one for the same number.
func testFile(n uint32) image.FileID {
	f := image.FileID{Image: testID, Shard: 2, Attempt: image.Attempt{0: 0xa0}}
	binary.BigEndian.PutUint32(f.Attempt[12:], n)
	return f
}

// number returns the number of a testFile.
func number(f image.FileID) uint32 { return binary.BigEndian.Uint32(f.Attempt[12:]) }

// newFile returns a file of its own upload.
func newFile() image.FileID {
	return image.FileID{Image: image.NewID(), Shard: 2, Attempt: image.NewAttempt()}
}

// expectFiles expects exactly these files under images/.
func expectFiles(t testing.TB, dir string, want ...string) {
	t.Helper()
	var got []string
	err := filepath.WalkDir(filepath.Join(dir, imagesDir), func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, p)
			got = append(got, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("files %v, want %v", got, want)
	}
}

func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	free, _, err := s.Free()
	if err != nil || free <= 0 {
		t.Fatal(free, err)
	}
	_, err = s.Create(testFile(1), free+1<<40)
	expectError(t, err, image.KindDiskFull)

	reserved := openTest(t, dir, Options{FreeBytesMin: 1 << 60})
	_, err = reserved.Create(testFile(1), 1)
	expectError(t, err, image.KindDiskFull)
	expectFiles(t, dir)
	if s.Failed() != nil || reserved.Failed() != nil {
		t.Error("a full disk failed the node")
	}
}

func TestOpenMissing(t *testing.T) {
	_, err := Open(filepath.Join(t.TempDir(), "none"), Options{})
	if !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var e *image.Error
	if !errors.As(err, &e) || e.Hint() == "" {
		t.Errorf("%v has no hint", err)
	}
}

func TestNames(t *testing.T) {
	good := testFile(7).String()
	if good != "0190b6a0-7c1e-7cc0-a1f4-5d6e7f8091a2-2-a0000000000000000000000000000007" ||
		PathOf(testFile(7)) != "images/07/"+good+".img" {
		t.Errorf("the layout on disk changed: %s", PathOf(testFile(7)))
	}
	if f, ok := parseName(good+".img", imgSuffix); !ok || f != testFile(7) {
		t.Error(f, ok)
	}
	for _, bad := range []string{
		"", ".img", good, good + ".tmp", good + ".img.img", strings.ToUpper(good) + ".img", good + "0.img",
	} {
		if f, ok := parseName(bad, imgSuffix); ok {
			t.Errorf("%q was read as %v", bad, f)
		}
	}
}

// TestConcurrent writes, reads and removes many files at once while sweeps run.
func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	const workers, each = 8, 6
	var wg sync.WaitGroup
	for g := range workers {
		wg.Go(func() {
			for i := range each {
				id := newFile()
				data := noise(uint64(g*100+i), directBytes+g*999+i)
				if err := put(s, id, data); err != nil {
					t.Error(err)
				}
				if got, err := get(s, id); err != nil || !bytes.Equal(got, data) {
					t.Errorf("read %d bytes, %v", len(got), err)
				}
				if i%2 == 0 {
					if err := s.Remove(id); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Go(func() {
		for range 5 {
			if _, _, err := s.Sweep(func(image.FileID) (bool, error) { return true, nil }); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	files, bytes := s.Usage()
	again := openTest(t, dir, Options{})
	if _, _, err := again.Sweep(func(image.FileID) (bool, error) { return true, nil }); err != nil {
		t.Fatal(err)
	}
	if f, b := again.Usage(); files != workers*each/2 || f != files || b != bytes {
		t.Errorf("counted %d files of %d bytes, on disk are %d of %d", files, bytes, f, b)
	}
}

// TestFoldersInBatches: however many files a folder has, a bounded number of names is in memory.
func TestFoldersInBatches(t *testing.T) {
	dir := t.TempDir()
	const files = 3*dirBatch + 7
	for i := range files {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), make([]byte, i%3), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fsys, err := openOS(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer fsys.close()
	for _, sizes := range []bool{false, true} {
		seen := map[string]bool{}
		bytes := int64(0)
		err := fsys.readDir(".", sizes, func(batch []entry) error {
			if len(batch) > dirBatch {
				t.Errorf("%d names at once", len(batch))
			}
			for _, e := range batch {
				seen[e.name] = true
				bytes += e.size
			}
			return nil
		})
		if want := int64(files); len(seen) != files || err != nil || sizes && bytes != want-want%3 {
			t.Errorf("sizes %v: %d names of %d, %d bytes, %v", sizes, len(seen), files, bytes, err)
		}
	}
}
