package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// write makes a file through Create.
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

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// wantFile checks a file's text and mode.
func wantFile(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	if info, err := os.Lstat(path); err != nil || info.Mode() != mode || string(b) != text {
		t.Errorf("%s: %q, %v, %v; want %q, %v", path, b, info.Mode(), err, text, mode)
	}
}

// wantAlone checks that nothing but these names is in a folder.
func wantAlone(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		if !strings.Contains(strings.Join(names, "\n")+"\n", e.Name()+"\n") {
			t.Errorf("%s is left in %s", e.Name(), dir)
		}
	}
}

// A new file has the umask's mode; one that is replaced keeps its own, wherever a link leads to it.
func TestCreateModes(t *testing.T) {
	dir := t.TempDir()
	defer syscall.Umask(syscall.Umask(0o027))
	path := func(name string) string { return filepath.Join(dir, name) }
	must(t, write(t, path("new"), "1"))
	wantFile(t, path("new"), "1", 0o640)
	must(t, os.WriteFile(path("old"), []byte("a longer text"), 0o600), os.Chmod(path("old"), 0o604), write(t, path("old"), "2"))
	wantFile(t, path("old"), "2", 0o604)
	must(t, os.Mkdir(path("sub"), 0o755), os.Symlink("../old", path("sub/link")), os.Symlink("sub/link", path("chain")), write(t, path("chain"), "3"))
	wantFile(t, path("old"), "3", 0o604)
	must(t, os.Symlink("later", path("sub/dangling")), write(t, path("sub/dangling"), "4"))
	wantFile(t, path("sub/later"), "4", 0o640)
	for _, link := range []string{"chain", "sub/link", "sub/dangling"} {
		if info, err := os.Lstat(path(link)); err != nil || info.Mode()&fs.ModeSymlink == 0 {
			t.Errorf("%s is no link any more: %v, %v", link, info, err)
		}
	}
	long := strings.Repeat("n", 255)
	must(t, write(t, path(long), "5"), write(t, path(long), "6"))
	wantFile(t, path(long), "6", 0o640)
	wantAlone(t, dir, "new", "old", "sub", "chain", long)
	wantAlone(t, path("sub"), "link", "dangling", "later")
}

// The owner stays, where this user may give files away.
func TestCreateKeepsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, nil, 0o600), os.Chown(path, 4711, 4712), write(t, path, "new"))
	info, err := os.Stat(path)
	must(t, err)
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 4711 || st.Gid != 4712 {
		t.Errorf("the owner is %d:%d", st.Uid, st.Gid)
	}
}

// What cannot be a file is refused by name and stays what it is; nothing is left behind.
func TestCreateRefuses(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.Mkdir(path("folder"), 0o755), syscall.Mkfifo(path("pipe"), 0o600), os.Symlink("/dev/null", path("device")), os.Symlink("loop", path("loop")))
	for name, said := range map[string]string{
		"folder": "it is a folder", "pipe": "it is not a file but a pipe", "device": "it is not a file but a device", "loop": "too many levels",
		"none/file": "no such file", strings.Repeat("n", 256): "file name too long",
	} {
		if _, err := Create(path(name)); err == nil || !strings.Contains(err.Error(), said) {
			t.Errorf("%.10s: %v, not %q", name, err, said)
		}
	}
	f, err := Create(path("given up"))
	must(t, err)
	f.Discard()
	wantAlone(t, dir, "folder", "pipe", "device", "loop")
}

// A disk that is full while the file is written: the old file stays, and nothing else.
func TestCreateOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("no file system to fill: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, 0) })
	path := filepath.Join(dir, "file")
	must(t, write(t, path, "old"))
	if err := write(t, path, strings.Repeat("new", 1<<16)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	b, err := os.ReadFile(path)
	if wantAlone(t, dir, "file"); err != nil || string(b) != "old" {
		t.Errorf("the file is %q, %v", b, err)
	}
}

func TestWriteNew(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, strings.Repeat("k", 255))
	must(t, WriteNew(path, []byte("key"), 0o400))
	wantFile(t, path, "key", 0o400)
	if err := WriteNew(path, []byte("other"), 0o400); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
	wantFile(t, path, "key", 0o400)
	wantAlone(t, dir, filepath.Base(path))
}
