package modes

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"imgcluster/config"
	"imgcluster/crypto"
)

// TestKeys changes the master key and a user's key of a running cluster, exports the keys, and then reads
// each stored file with nothing else left of the cluster.
func TestKeys(t *testing.T) {
	t.Parallel()
	l := up(t)
	files := photos(t)[:2]
	run := func(args ...string) ended { return finish(t, program(t, l.dir, args...)) }
	run("put", "--user", "alice", "--name", "one", files[0]).expectErr(t, 0)

	run("keys", "status").expectOut(t, 0, "master key ", "node 3  uses ")
	run("keys", "rotate").expectRefused(t, 2, "no next master key")
	run("keys", "rotate", "--finish").expectRefused(t, 2, "is not changing")
	run("keys", "rotate", "--prepare", "--finish").expectRefused(t, 2)
	run("keys", "rotate", "--user", "nobody").expectRefused(t, 1, "nobody")
	run("keys", "rotate", "--prepare").expectOut(t, 0, "master.key.next", "Then   imgcluster keys rotate")
	run("keys", "rotate", "--prepare").expectOut(t, 0, "master.key.next") // again: nothing is overwritten
	eventually(t, "all nodes have the next key", func() bool { return run("keys", "rotate").status == 0 })
	run("keys", "rotate", "--finish").expectOut(t, 0, "master key ")
	run("keys", "rotate", "--user", "alice", "--json").expectOut(t, 0, `"user":"alice"`)
	run("put", "--user", "alice", "--name", "two", files[1]).expectErr(t, 0)
	run("keys", "rewrap").expectRefused(t, 2, "whose images?")
	run("keys", "rewrap", "--user", "nobody").expectRefused(t, 1, "nobody")
	run("keys", "rewrap", "--user", "alice", "--json").expectOut(t, 0, `"key":2,"left":0,"nodes":[]`)
	run("keys", "rewrap", "--user", "alice").expectErr(t, 0, "encrypted with key 2")

	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	kept := t.TempDir()
	in := func(name string) string { return filepath.Join(kept, name) }
	run("keys", "export", "-o", in("keys.age")).expectRefused(t, 2, "to whom")
	run("keys", "export", "--to", "bob", "-o", in("keys.age")).expectRefused(t, 2, "not an age recipient")
	if _, err := os.Stat(in("keys.age")); err == nil {
		t.Error("a refused export left a file")
	}
	run("keys", "export", "--to", identity.Recipient().String(), "-o", in("keys.age"), "--json").
		expectOut(t, 0, `"keys":2`)
	if err := os.WriteFile(in("identity"), []byte(identity.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if status := l.interrupt(t); status != 0 {
		t.Errorf("exit status %d: %s", status, &l.err)
	}

	// All is lost but the stored files.
	var stored []string
	err = filepath.WalkDir(l.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".img") {
			to := in(filepath.Base(path))
			stored = append(stored, to)
			err = os.Rename(path, to)
		}
		return err
	})
	if err == nil {
		err = os.RemoveAll(l.dir)
	}
	if err != nil || len(stored) != 4 {
		t.Fatalf("stored are %v, %v", stored, err)
	}
	found := map[string]int{}
	for _, path := range stored {
		e := call(t, "decrypt", path, "--keys", in("keys.age"), "--identity", in("identity"), "-o", in("plain"),
			"--force")
		if e.status != 0 {
			t.Error(e)
			continue
		}
		for _, f := range files {
			if bytes.Equal(read(t, in("plain")), read(t, f)) {
				found[f]++
			}
		}
	}
	if len(found) != 2 || found[files[0]] != 2 || found[files[1]] != 2 {
		t.Errorf("decrypted are %v", found)
	}
}

// TestKeysPrepareAgain: the next ca.crt of a cluster with TLS is made once, and left alone after that.
func TestKeysPrepareAgain(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	call(t, "init", hostA, hostB, hostC).expectOut(t, 0)
	call(t, "keys", "rotate", "--prepare").expectOut(t, 0, "master.key.next", "ca.crt.next  public")
	before := folder(t, dir)
	call(t, "keys", "rotate", "--prepare").expectOut(t, 0, "master.key.next", "ca.crt.next  public")
	if after := folder(t, dir); !equalFolders(before, after) {
		t.Errorf("changed to %v", after)
	}
}

// TestMasterKeysOnce: a command runs the program that prints the master key once, but after a failure again.
func TestMasterKeysOnce(t *testing.T) {
	t.Chdir(t.TempDir())
	cfg := config.Default()
	cfg.Local.MasterKeyCommand = "sh print"
	must(t, os.WriteFile("print", []byte("echo >>runs\ncat key\n"), 0o600))
	e := &env{ctx: t.Context()}
	if _, err := e.masterKeys(cfg); err == nil {
		t.Fatal("there is a key that nobody has made")
	}
	key, err := crypto.CreateMasterKey("key")
	must(t, err)
	for range 2 {
		if keys, err := e.masterKeys(cfg); err != nil || keys.Own.ID() != key.ID() {
			t.Fatal(keys, err)
		}
	}
	if runs := read(t, "runs"); len(runs) != 2 {
		t.Errorf("%d runs, want 2", len(runs))
	}
}
