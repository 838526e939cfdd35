package modes

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestVersion: the program says what it was built from. That Go stamps the tag and the commit into it is for
// make release-check.
func TestVersion(t *testing.T) {
	v := decode[versionInfo](t, call(t, "version", "--json").out)
	if v.Version == "" || v.Go != runtime.Version() || v.OS != runtime.GOOS || v.Arch != runtime.GOARCH {
		t.Errorf("version --json is %+v", v)
	}
	text := versionInfo{"v0.9.0", "c4ee132fc4c1", true, "go1.26.8", "linux", "amd64"}.String()
	if text != "imgcluster v0.9.0 (commit c4ee132fc4c1 with changes, go1.26.8, linux/amd64)" {
		t.Errorf("it prints %q", text)
	}
}

// TestReleaseOfChangedTree: nothing is released of a tree that differs from its commit, of no clone, or into
// a folder that has something else.
func TestReleaseOfChangedTree(t *testing.T) {
	for _, tool := range []string{"git", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("no " + tool)
		}
	}
	root := t.TempDir()
	deploy := filepath.Join(root, "testdata", "deploy")
	must(t, os.MkdirAll(deploy, 0o755))
	script := filepath.Join(deploy, "release.sh")
	must(t, os.WriteFile(script, read(t, "../testdata/deploy/release.sh"), 0o755))
	release := func(into, why string) {
		t.Helper()
		out, err := exec.Command(script, into).CombinedOutput()
		if err == nil || !strings.Contains(string(out), why) || !strings.Contains(string(out), "\nhint: ") {
			t.Errorf("want %q of %v, %s", why, err, out)
		}
	}
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=a", "-c", "user.email=a@b"}, args...)...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v, %s", args, err, out)
		}
	}
	out := filepath.Join(t.TempDir(), "release")
	release(out, "no clone")
	git("init", "-q")
	git("add", ".")
	git("commit", "-qm", "first")
	must(t, os.WriteFile(filepath.Join(root, "new.go"), nil, 0o644))
	release(out, "differs from commit")
	must(t, os.Remove(filepath.Join(root, "new.go")))
	must(t, os.WriteFile(filepath.Join(out, "kept"), nil, 0o644))
	release(out, "is not empty")
}
