//go:build unix

package hostinfo

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLimitsOf(t *testing.T) {
	dir := t.TempDir()
	l, err := LimitsOf(filepath.Join(dir, "not", "there"))
	if err != nil {
		t.Fatal(err)
	}
	if l.OpenFiles < 16 || l.AddressSpace < 1<<20 || l.Memory < 16<<20 || l.MemoryFree <= 0 {
		t.Errorf("%+v", l)
	}
	if l.Bytes <= 0 || l.BytesTotal < l.Bytes || l.Inodes <= 0 || l.Place != dir {
		t.Errorf("%+v", l)
	}
	if _, err := LimitsOf("/dev/null/x"); err == nil {
		t.Error("a file was taken for a folder")
	}
}

func TestFreeInodes(t *testing.T) {
	if n := FreeInodes(&unix.Statfs_t{Files: 100, Ffree: 7}); n != 7 {
		t.Errorf("7 of 100 became %d", n)
	}
	if n := FreeInodes(&unix.Statfs_t{}); n != NoInodeLimit { // as btrfs says
		t.Errorf("no fixed number became %d", n)
	}
}

// TestGroupMemory: the smallest of a group's limit and of those above it counts, in both versions of control
// groups.
func TestGroupMemory(t *testing.T) {
	root := t.TempDir()
	for path, text := range map[string]string{
		"memory.max": "max\n", "a/memory.max": "1000\n", "a/b/memory.max": "2000\n",
		"memory/docker/memory.limit_in_bytes": "700\n",
		"memory/memory.limit_in_bytes":        "9223372036854771712\n",
	} {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for groups, want := range map[string]int64{
		"":                                  Unlimited,
		"0::/\n":                            Unlimited,
		"0::/a/b\n":                         1000,
		"0::/a/b/c:d\n":                     1000,
		"0::/other\n":                       Unlimited,
		"4:memory:/docker/1\n0::/\n":        700,
		"4:memory:/\n":                      9223372036854771712,
		"3:cpu,cpuacct:/a\n1:name=x:/a/b\n": Unlimited,
		"nonsense":                          Unlimited,
	} {
		if got := groupMemory(root, groups); got != want {
			t.Errorf("%q: %d, want %d", groups, got, want)
		}
	}
}
