//go:build unix

package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// write writes a file with Create and Commit.
func write(t *testing.T, path, text string) error {
	t.Helper()
	f, err := Create(path)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		f.Discard()
		return err
	}
	return f.Commit()
}

// must ends the test at an error.
func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// expectFile expects a file with this text and mode.
func expectFile(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	if info, err := os.Lstat(path); err != nil || info.Mode() != mode || string(b) != text {
		t.Errorf("%s: %q, %v, %v; want %q, %v", path, b, info.Mode(), err, text, mode)
	}
}

// expectOnly expects nothing but these names in a folder.
func expectOnly(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		if !strings.Contains(strings.Join(names, "\n")+"\n", e.Name()+"\n") {
			t.Errorf("%s is left in %s", e.Name(), dir)
		}
	}
}

// TestCreateModes: a new file has the mode that the umask leaves, a replaced one keeps its mode, also behind
// links.
func TestCreateModes(t *testing.T) {
	dir := t.TempDir()
	defer syscall.Umask(syscall.Umask(0o027))
	path := func(name string) string { return filepath.Join(dir, name) }
	must(t, write(t, path("new"), "1"))
	expectFile(t, path("new"), "1", 0o640)
	must(t, os.WriteFile(path("old"), []byte("a longer text"), 0o600))
	must(t, os.Chmod(path("old"), 0o604))
	must(t, write(t, path("old"), "2"))
	expectFile(t, path("old"), "2", 0o604)
	must(t, os.Mkdir(path("sub"), 0o755))
	must(t, os.Symlink("../old", path("sub/link")))
	must(t, os.Symlink("sub/link", path("chain")))
	must(t, write(t, path("chain"), "3"))
	expectFile(t, path("old"), "3", 0o604)
	must(t, os.Symlink("later", path("sub/dangling")))
	must(t, write(t, path("sub/dangling"), "4"))
	expectFile(t, path("sub/later"), "4", 0o640)
	for _, link := range []string{"chain", "sub/link", "sub/dangling"} {
		if info, err := os.Lstat(path(link)); err != nil || info.Mode()&fs.ModeSymlink == 0 {
			t.Errorf("%s is not a link any more: %v, %v", link, info, err)
		}
	}
	long := strings.Repeat("n", 255)
	must(t, write(t, path(long), "5"))
	must(t, write(t, path(long), "6"))
	expectFile(t, path(long), "6", 0o640)
	expectOnly(t, dir, "new", "old", "sub", "chain", long)
	expectOnly(t, path("sub"), "link", "dangling", "later")
}

// TestCreateKeepsOwner: a replaced file keeps its owner where this user may set it.
func TestCreateKeepsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may set the owner")
	}
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, os.Chown(path, 4711, 4712))
	must(t, write(t, path, "new"))
	info, err := os.Stat(path)
	must(t, err)
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 4711 || st.Gid != 4712 {
		t.Errorf("the owner is %d:%d", st.Uid, st.Gid)
	}
}

// TestCreateRefuses: a path that cannot be a file is refused with the reason and stays as it is.
func TestCreateRefuses(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.Mkdir(path("folder"), 0o755))
	must(t, syscall.Mkfifo(path("pipe"), 0o600))
	must(t, os.Symlink("/dev/null", path("device")))
	must(t, os.Symlink("loop", path("loop")))
	for name, mode := range map[string]fs.FileMode{
		"folder": fs.ModeDir, "pipe": fs.ModeNamedPipe, "device": fs.ModeDevice | fs.ModeCharDevice,
	} {
		var refused *NotFileError
		if _, err := Create(path(name)); !errors.As(err, &refused) || refused.Mode.Type() != mode {
			t.Errorf("%s: %v, want a NotFileError of %v", name, err, mode)
		}
	}
	for name, want := range map[string]error{
		"loop": syscall.ELOOP, "none/file": syscall.ENOENT, strings.Repeat("n", 256): syscall.ENAMETOOLONG,
	} {
		if _, err := Create(path(name)); !errors.Is(err, want) {
			t.Errorf("%.10s: %v, want %v", name, err, want)
		}
	}
	f, err := Create(path("discarded"))
	must(t, err)
	f.Discard()
	expectOnly(t, dir, "folder", "pipe", "device", "loop")
}

func TestWriteNew(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, strings.Repeat("k", 255))
	must(t, WriteNew(path, []byte("key"), 0o400))
	expectFile(t, path, "key", 0o400)
	if err := WriteNew(path, []byte("other"), 0o400); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
	expectFile(t, path, "key", 0o400)
	expectOnly(t, dir, filepath.Base(path))
}
