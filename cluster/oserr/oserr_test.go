package oserr

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestClasses(t *testing.T) {
	for _, c := range []struct {
		err   error
		class Class
		hint  string
	}{
		{nil, None, ""},
		{io.ErrUnexpectedEOF, None, ""},
		{syscall.EINTR, None, ""},
		{&fs.PathError{Op: "open", Path: "/a", Err: syscall.EMFILE}, Scarce, "ulimit -n"},
		{fmt.Errorf("pebble: %w", syscall.ENFILE), Scarce, "fs.file-max"},
		{syscall.ENOMEM, Scarce, "limits.memory_bytes"},
		{errors.New("panic: open /a: too many open files"), Scarce, "LimitNOFILE="},
		{errors.New("open /a: too many open files in system"), Scarce, "fs.file-max"},
		{&fs.PathError{Op: "read", Path: "/a/b", Err: syscall.EIO}, Broken, "the disk under /a/b"},
		{syscall.EBADMSG, Broken, "fsck on the disk under /dir"},
		{syscall.EROFS, Fixed, "mount /dir read-write"},
		{syscall.EDQUOT, Full, "quota"},
		{&os.LinkError{Op: "rename", Old: "x", New: "y", Err: syscall.EFBIG}, Full, "ulimit -f"},
		{fs.ErrNotExist, None, ""},
		{syscall.ENOENT, Missing, "/dir"},
		{&fs.PathError{Op: "openat", Path: "a", Err: syscall.EISDIR}, Wrong, "check the path /dir/a"},
		{syscall.EAGAIN, Held, "another process holds /dir: stop it first"},
		{syscall.EADDRINUSE, Busy, "another program"},
	} {
		got := ClassOf(c.err)
		hint := Hint(c.err, "/dir")
		if got != c.class || !strings.Contains(hint, c.hint) || (hint == "") != (c.class == None) {
			t.Errorf("%v: class %d, want %d; hint %q, want %q", c.err, got, c.class, hint, c.hint)
		}
	}
	for no, k := range known {
		if k.class == None || k.hint("") == "" {
			t.Errorf("%v has no class or no hint", no)
		}
		if strings.Contains(k.hint("/a"), "--replace") {
			t.Errorf("the hint of %v would delete good copies", no)
		}
	}
}

func TestOwnerHint(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a", "b")
	denied := &fs.PathError{Op: "openat", Path: "a/b", Err: syscall.EACCES}
	if err := os.Mkdir(filepath.Dir(path), 0o500); err != nil {
		t.Fatal(err)
	}
	me := os.Geteuid()
	// The file does not exist: the hint names the folder above it.
	want := fmt.Sprintf("%s is of user %d with mode 0500, this process runs as user %d: chmod u+rwx %[1]s",
		filepath.Dir(path), me, me)
	if got := Hint(denied, dir); !strings.HasPrefix(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if me != 0 {
		return
	}
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Lchown(path, 4711, 4711)); err != nil {
		t.Fatal(err)
	}
	got := Hint(denied, dir)
	parts := []string{"of user 4711 with mode 0600", "run it as user 4711, or chown -R 0 " + path}
	for _, part := range parts {
		if !strings.Contains(got, part) {
			t.Errorf("%q does not have %q", got, part)
		}
	}
}
