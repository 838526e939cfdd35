package witness

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestChangedFiles flips each byte of what was synced, and cuts it, after a crash and after an
// orderly stop, when nothing else may differ either.
func TestChangedFiles(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		root := t.TempDir()
		w := mustWitness(t, root)
		fs := w.FS(vfs.Default)
		path := filepath.Join(root, "catalog", "000002.log")
		must(t, os.MkdirAll(filepath.Join(root, "raft"), 0o700))
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
		must(t, err)
		for _, part := range []string{"synced ", "too "} {
			_, err = f.Write([]byte(part))
			must(t, err)
			must(t, f.SyncData())
		}
		_, err = f.Write([]byte("not synced"))
		must(t, err)
		must(t, f.Close())
		must(t, os.WriteFile(filepath.Join(root, "catalog", "OPTIONS-000003"), []byte("small"), 0o600))
		must(t, w.Close(sealed))
		whole, err := os.ReadFile(path)
		must(t, err)
		witness, err := os.ReadFile(filepath.Join(root, FileName))
		must(t, err)
		// damaged reports whether the next start sees that the file has this content.
		damaged := func(content []byte) bool {
			t.Helper()
			must(t, os.WriteFile(path, content, 0o600))
			must(t, os.WriteFile(filepath.Join(root, FileName), witness, 0o600))
			w, err := Open(root)
			if err == nil {
				must(t, w.Close(false))
				return false
			}
			expectChanged(t, err, "catalog/000002.log")
			return true
		}
		promised := len("synced too ")
		if sealed {
			promised = len(whole)
		}
		for i := range whole {
			flipped := bytes.Clone(whole)
			flipped[i] ^= 1
			if damaged(flipped) != (i < promised) {
				t.Errorf("sealed %t: a flip at %d of %d", sealed, i, len(whole))
			}
			if damaged(whole[:i]) != (i < promised) {
				t.Errorf("sealed %t: a cut to %d of %d", sealed, i, len(whole))
			}
		}
		if damaged(whole) || damaged(append(bytes.Clone(whole), '!')) != sealed {
			t.Errorf("sealed %t: the whole file, or a longer one", sealed)
		}
		must(t, os.WriteFile(path, whole, 0o600))
		for i := 0; i < len(witness); i += 5 { // it then knows less, but nothing wrong
			flipped := bytes.Clone(witness)
			flipped[i] ^= 1
			must(t, os.WriteFile(filepath.Join(root, FileName), flipped, 0o600))
			w, err := Open(root)
			if err != nil && !(sealed && strings.Contains(err.Error(), "added")) {
				t.Fatalf("sealed %t, a flip at %d of the witness: %v", sealed, i, err)
			}
			if err == nil {
				must(t, w.Close(false))
			}
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// expectChanged fails unless err says of this file that it is not what was written.
func expectChanged(t *testing.T, err error, name string) {
	t.Helper()
	var changed *ChangedError
	if !errors.As(err, &changed) || changed.Name != name {
		t.Fatalf("%v, want that %s was changed", err, name)
	}
}

func mustWitness(t *testing.T, root string) *Witness {
	t.Helper()
	w, err := Open(root)
	must(t, err)
	return w
}

// TestRemovedFiles removes files, and has them come again under the same name and under another.
// TestNewerWitness: one of another version is refused and kept, since what it says is not known.
func TestNewerWitness(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, FileName)
	newer := encodeSlot("witness 2", mark{1})
	must(t, os.WriteFile(path, newer, 0o600))
	if _, err := Open(root); !errors.Is(err, ErrFormat) {
		t.Errorf("it is refused with %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, newer) {
		t.Errorf("it was changed: %v", err)
	}
}

func TestRemovedFiles(t *testing.T) {
	root := t.TempDir()
	w := mustWitness(t, root)
	fs := w.FS(vfs.Default)
	path := func(name string) string { return filepath.Join(root, name) }
	write := func(f vfs.File, err error, content string) {
		t.Helper()
		must(t, err)
		_, err = f.Write([]byte(content))
		must(t, err)
		must(t, f.Sync())
		must(t, f.Close())
	}
	for _, content := range []string{"first", "second and longer", "3rd"} {
		f, err := fs.Create(path("1.log"), vfs.WriteCategoryUnspecified)
		write(f, err, content)
	}
	f, err := fs.Create(path("2.log"), vfs.WriteCategoryUnspecified)
	write(f, err, "an old log, which is written over")
	f, err = fs.ReuseForWrite(path("2.log"), path("3.log"), vfs.WriteCategoryUnspecified)
	write(f, err, "a new log")
	f, err = fs.Create(path("4.sst"), vfs.WriteCategoryUnspecified)
	write(f, err, "a table")
	must(t, fs.Link(path("4.sst"), path("5.sst")))
	must(t, fs.Remove(path("4.sst")))
	must(t, w.Close(false))
	known, _, err := readSlots(path(FileName))
	must(t, err)
	var names []string
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	if want := []string{"1.log", "3.log", "5.sst"}; !slices.Equal(names, want) {
		t.Errorf("the witness knows %v, want %v", names, want)
	}
	must(t, mustWitness(t, root).Close(false)) // all of it is right
	must(t, os.WriteFile(path("3.log"), []byte("a mew log, which is written over"), 0o600))
	_, err = Open(root)
	expectChanged(t, err, "3.log")
}
