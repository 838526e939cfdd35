package crypto

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A secret of a container is root's and its group's, on a read-only mount, and read by another user.
func TestKeyOfContainer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for the mount and the other user")
	}
	dir, err := os.MkdirTemp("", "container-key-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program := filepath.Join(dir, "program") // where another user can run it
	if err := errors.Join(os.Chmod(dir, 0o755), copyFile(os.Args[0], program)); err != nil {
		t.Fatal(err)
	}
	mounted := filepath.Join(dir, "secrets")
	if err := os.Mkdir(mounted, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(mounted, "master.key")
	made := must[*MasterKey](t)(CreateMasterKey(path))
	const user, group, stranger = 4711, 4712, 4713
	load := func(uid, gid uint32) string {
		c := exec.Command(program)
		c.Env = append(os.Environ(), keyPathEnv+"="+path)
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
		out, _ := c.CombinedOutput() // it says what failed
		return string(out)
	}
	for _, c := range []struct {
		name     string
		mode     os.FileMode
		readOnly bool
		uid, gid uint32
		says     string
	}{
		{"Kubernetes with fsGroup", 0o440, true, user, group, made.ID()},
		{"the same, as root", 0o440, true, 0, 0, made.ID()},
		{"root's own, not mounted", 0o440, false, 0, 0, "has mode 0440"},
		{"not mounted, another user", 0o440, false, user, group, made.ID()},
		{"group may write", 0o460, true, user, group, "has mode 0460"},
		{"Docker's default", 0o444, true, user, group, "has mode 0444"},
		{"Docker's default, as root", 0o444, true, 0, 0, "has mode 0444"},
		{"not of the group", 0o440, true, user, stranger, "permission denied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := errors.Join(os.Chown(path, 0, group), os.Chmod(path, c.mode)); err != nil {
				t.Fatal(err)
			}
			if c.readOnly {
				if err := unix.Mount(mounted, mounted, "", unix.MS_BIND, ""); err != nil {
					t.Skipf("no mount: %v", err)
				}
				defer unix.Unmount(mounted, 0)
				flags := uintptr(unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY)
				if err := unix.Mount("", mounted, "", flags, ""); err != nil {
					t.Fatal(err)
				}
			}
			if said := load(c.uid, c.gid); !strings.Contains(said, c.says) {
				t.Errorf("mode %v: %s", c.mode, said)
			}
		})
	}
	if err := os.Chmod(path, 0o444); err != nil {
		t.Fatal(err)
	}
	var e *Error
	if _, err := LoadMasterKey(path); !errors.As(err, &e) || !strings.Contains(e.Hint(), MasterKeyEnv) ||
		!strings.Contains(e.Hint(), "mode 0400") {
		t.Errorf("no way out for a mode that cannot be changed: %v", err)
	}
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}
