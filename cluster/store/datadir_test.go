package store

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"imgcluster/cluster/image"
)

var testIdentity = Identity{Cluster: "imgcluster", Node: 2, KeyID: "k1"}

func mustClaim(t *testing.T, dir string) *DataDir {
	t.Helper()
	d, err := Claim(dir, testIdentity)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// expectRefusal expects that Claim refuses for the reason, with a text or hint that has each part, and
// changes nothing.
func expectRefusal(t *testing.T, dir string, want Identity, reason error, parts ...string) {
	t.Helper()
	before := tree(t, dir)
	d, err := Claim(dir, want)
	if err == nil {
		d.Close()
		t.Fatalf("%+v was accepted, want %v", want, reason)
	}
	var e *image.Error
	if !errors.As(err, &e) || e.Kind != image.KindInvalid || !errors.Is(err, reason) || e.Hint() == "" {
		t.Fatalf("error %v, want one of KindInvalid for %q with a hint", err, reason)
	}
	for _, part := range parts {
		if text := e.Error() + "\n" + e.Hint(); !strings.Contains(text, part) {
			t.Errorf("%q does not say %q", text, part)
		}
	}
	if after := tree(t, dir); after != before {
		t.Errorf("the refused directory changed from\n%s\nto\n%s", before, after)
	}
}

// tree returns the names and contents in a directory, without the content of the lock.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		t.Fatal(err)
	}
	for _, e := range entries {
		content, _ := os.ReadFile(filepath.Join(dir, e.Name()))
		if e.Name() == lockName {
			content = nil
		}
		fmt.Fprintf(&b, "%s %q\n", e.Name(), content)
	}
	return b.String()
}

func TestClaim(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "node2")
	d := mustClaim(t, dir)
	id := d.Identity()
	if len(id.Incarnation) != 32 || id.Created.IsZero() {
		t.Errorf("identity %+v", id)
	}
	want := testIdentity
	want.Format = formatVersion
	want.Incarnation = id.Incarnation
	want.Created = id.Created
	if !reflect.DeepEqual(id, want) {
		t.Errorf("identity %+v, want %+v", id, want)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Error(info.Mode(), err)
	}
	expectRefusal(t, dir, testIdentity, ErrInUse, fmt.Sprintf("process %d", os.Getpid()), "--data-dir")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again := mustClaim(t, dir)
	if !reflect.DeepEqual(again.Identity(), id) {
		t.Errorf("the identity changed from %+v to %+v", id, again.Identity())
	}
	if other := mustClaim(t, t.TempDir()); other.Identity().Incarnation == id.Incarnation {
		t.Error("two directories have the same incarnation")
	}
	openTest(t, dir, Options{}) // a store fits into a claimed directory
}

func TestClaimRefusals(t *testing.T) {
	dir := t.TempDir()
	mustClaim(t, dir).Close()
	with := func(change func(*Identity)) Identity { id := testIdentity; change(&id); return id }
	otherCluster := with(func(id *Identity) { id.Cluster = "other" })
	expectRefusal(t, dir, otherCluster, ErrOtherCluster, `"imgcluster"`, `"other"`, dir)
	otherNode := with(func(id *Identity) { id.Node = 3 })
	expectRefusal(t, dir, otherNode, ErrOtherNode, "belongs to node 2", "--id 2", "--data-dir")
	otherKey := with(func(id *Identity) { id.KeyID = "k9" })
	expectRefusal(t, dir, otherKey, ErrOtherKey, "k1", "k9")
	mustClaim(t, dir) // a refusal releases the lock

	for name, c := range map[string]struct {
		file, content string
		reason        error
		parts         []string
	}{
		"foreign":   {"photo.jpg", "x", ErrNotOurs, []string{"photo.jpg", "empty"}},
		"newer":     {identityName, `{"format":2,"node":"two"}`, ErrFormat, []string{"format 2", "format 1"}},
		"cut":       {identityName, `{"format":1,"clus`, ErrDataDir, []string{"damaged", "restore"}},
		"no fields": {identityName, `{"format":1}`, ErrDataDir, []string{"damaged"}},
		"empty":     {identityName, "", ErrDataDir, []string{"damaged"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.file == identityName { // so that the lock file is not new
				os.WriteFile(filepath.Join(dir, lockName), nil, 0o600)
			}
			if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			expectRefusal(t, dir, testIdentity, c.reason, c.parts...)
		})
	}
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o600)
	expectRefusal(t, file, testIdentity, ErrDataDir, file, "--data-dir")
	expectRefusal(t, filepath.Join(file, "below"), testIdentity, ErrDataDir, "--data-dir")
}

// TestClaimAfterFlip flips each bit of node.json: Claim refuses it, or reads the same identity.
func TestClaimAfterFlip(t *testing.T) {
	dir := t.TempDir()
	d := mustClaim(t, dir)
	err := d.Update(func(id *Identity) {
		id.Starts = 7
		id.Joined = true
		id.Members = []byte(`[{"id":1}]`)
	})
	if err != nil {
		t.Fatal(err)
	}
	want := d.Identity()
	d.Close()
	path := filepath.Join(dir, identityName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refusals := 0
	for bit := range 8 * len(whole) {
		b := bytes.Clone(whole)
		b[bit/8] ^= 1 << (bit % 8)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := Claim(dir, testIdentity)
		if err != nil {
			refusals++
			continue
		}
		got := d.Identity()
		got.Members = bytes.Join(bytes.Fields(got.Members), nil)
		if want.Members = bytes.Join(bytes.Fields(want.Members), nil); !reflect.DeepEqual(got, want) {
			t.Fatalf("after a flip of bit %d the identity is %+v", bit, got)
		}
		d.Close()
	}
	if refusals < 4*len(whole) {
		t.Errorf("%d of %d flips were refused", refusals, 8*len(whole))
	}
}

// TestClaimAfterInterruptedStart: what an interrupted first start leaves does not stop the next one.
func TestClaimAfterInterruptedStart(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{lockName, identityTmp} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("part"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	os.Mkdir(filepath.Join(dir, "lost+found"), 0o700)
	mustClaim(t, dir)
	if _, err := os.Stat(filepath.Join(dir, identityTmp)); !errors.Is(err, os.ErrNotExist) {
		t.Error("the temporary file is still there:", err)
	}
}

// TestClaimPowerLoss: node.json is whole and durable, or absent, wherever the power fails.
func TestClaimPowerLoss(t *testing.T) {
	for cut, done := 1, false; !done; cut++ {
		for name, crash := range crashes() {
			mem := newMemFS()
			f := &faultFS{fileSystem: growFS{mem}, failAt: cut, onward: true, err: errOff}
			id, err := firstStart(f, "dir", testIdentity)
			done = err == nil
			r, size, openErr := crash(mem).open(identityName, false)
			if err == nil && openErr != nil {
				t.Errorf("cut at %d, keeping %s: node.json is lost", cut, name)
			}
			if openErr != nil {
				continue
			}
			b := make([]byte, size)
			r.ReadAt(b, 0)
			current := err != nil || bytes.Contains(b, []byte(id.Incarnation))
			if whole := bytes.HasSuffix(b, []byte("}\n")); !current || !whole {
				t.Errorf("cut at %d, keeping %s: node.json is %q", cut, name, b)
			}
		}
	}
}

// growFS lets writes extend a file, unlike memFS: an image file has its length before it is written.
type growFS struct{ *memFS }

func (g growFS) create(name string, direct bool) (file, error) {
	f, err := g.memFS.create(name, direct)
	if err != nil {
		return nil, err
	}
	return growFile{f.(*memWriter)}, nil
}

type growFile struct{ *memWriter }

func (g growFile) write(p []byte) error {
	g.n.data = append(g.n.data, make([]byte, len(p))...)
	return g.memWriter.write(p)
}

const childEnv = "STORE_TEST_CLAIM_DIR"

// TestMain lets the test binary serve as the other process of TestClaimOtherProcess.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if _, err := Claim(dir, testIdentity); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("claimed")
		select {} // until it is killed
	}
	os.Exit(m.Run())
}

// TestClaimOtherProcess: the claim of a killed process ends with it.
func TestClaimOtherProcess(t *testing.T) {
	dir := t.TempDir()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if line == "claimed\n" && err == nil {
		expectRefusal(t, dir, testIdentity, ErrInUse, fmt.Sprintf("process %d", child.Process.Pid))
	} else {
		t.Error(line, err)
	}
	child.Process.Kill()
	child.Wait()
	mustClaim(t, dir)
}

// TestIdentityIsReadable: what would be too large to be read back is not written, and what is there stays.
func TestIdentityIsReadable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node2")
	d := mustClaim(t, dir)
	before := d.Identity()
	err := d.Update(func(id *Identity) {
		id.Members = json.RawMessage(`"` + strings.Repeat("a", 70_000) + `"`)
	})
	if !errors.Is(err, ErrDataDir) || image.HintOf(err) == "" {
		t.Errorf("70,000 bytes: %v", err)
	}
	if err := d.Update(func(id *Identity) { id.Starts++ }); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	before.Starts++
	if got := mustClaim(t, dir).Identity(); !reflect.DeepEqual(got, before) {
		t.Errorf("read back %+v, want %+v", got, before)
	}
}

// TestQuarantineIsKept: an incarnation that got nothing yet, since its cluster refused it, does not cost
// the one before it what it had.
func TestQuarantineIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node2")
	d := mustClaim(t, dir)
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, "raft"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct{ raft, want string }{{"first", "first"}, {"", "first"}, {"second", "second"}} {
		if step.raft != "" {
			write(step.raft)
		}
		if err := d.NewIncarnation("raft", "catalog"); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, "quarantine", "raft"))
		if err != nil || string(b) != step.want {
			t.Errorf("after %q: quarantine has %q, %v", step.raft, b, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "raft")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after %q: %v", step.raft, err)
		}
	}
}
