package modes

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// testAccounts makes and removes users and access keys.
func testAccounts(t *testing.T, l *upCluster) {
	l.run("user", "add", "bob").expectErr(t, 0, "user bob is there since")
	l.run("user", "add", "a/b").expectRefused(t, exitUsage, "contains a slash", "one name")
	e := l.run("key", "add", "--user", "bob", "--role", "write", "--expires", "90d")
	e.expectOut(t, 0, "access key  IC", "user        bob", "role        write")
	e.expectErr(t, 0, "not shown again", "IMGCLUSTER_SECRET_KEY")
	found := regexp.MustCompile(`access key +(\S+)\nsecret +(\S+)\n`).FindStringSubmatch(e.out)
	if found == nil {
		t.Fatal(e)
	}
	if strings.Contains(e.err, found[2]) {
		t.Error("the secret is shown twice")
	}
	var made wire.NewKey
	e = l.run("key", "add", "--role", "metrics", "--json")
	if err := json.Unmarshal([]byte(e.out), &made); err != nil || made.Secret == "" || !made.Expires.IsZero() {
		t.Errorf("%v: %v", err, e)
	}
	list := l.run("key", "list")
	list.expectOut(t, 0, found[1], made.ID, "bob", "metrics", "never")
	if strings.Contains(list.out, found[2]) || strings.Contains(list.out, made.Secret) {
		t.Error("the list has a secret")
	}
	if of := l.run("key", "list", "--user", "bob"); strings.Contains(of.out, made.ID) {
		t.Errorf("another's key in %v", of)
	}
	var key wire.AccessKey
	e = l.run("key", "list", "--json", "--user", "bob")
	if err := json.Unmarshal([]byte(e.out), &key); err != nil || key.ID != found[1] ||
		time.Until(key.Expires) < 89*24*time.Hour || time.Until(key.Expires) > 91*24*time.Hour {
		t.Errorf("%v: %v", err, e)
	}
	l.run("key", "rm", made.ID).expectErr(t, 0, "removed "+made.ID)
	l.run("key", "rm", made.ID).expectRefused(t, exitFailed, "there is no access key", "key list")
	for _, bad := range [][]string{
		{"--role", "write"},
		{"--user", "bob"},
		{"--user", "bob", "--role", "root"},
		{"--role", "admin", "--expires", "soon"},
		{"--role", "admin", "--expires", "0d"},
		{"--role", "admin", "--expires", "-5h"},
		{"--role", "admin", "--expires", "99999d"},
		{"--user", "a/b", "--role", "read"},
	} {
		if e := l.run(append([]string{"key", "add"}, bad...)...); e.status != exitUsage ||
			!strings.Contains(e.err, "hint: ") {
			t.Errorf("%q: %v", bad, e)
		}
	}

	l.run("put", "--user", "bob", photos(t)[0]).expectErr(t, 0)
	l.run("user", "rm", "bob").expectRefused(t, exitUsage, "asks before", "--yes")
	l.run("user", "rm", "bob", "--yes").expectErr(t, 0, "keys are destroyed", "its files are deleted")
	if e := l.run("ls", "bob"); e.out != "" {
		t.Errorf("images of a removed user: %v", e)
	}
	if e := l.run("key", "list"); strings.Contains(e.out, found[1]) {
		t.Errorf("a removed user's key is left: %v", e)
	}
	if e := l.run("user", "list"); strings.Contains(e.out, "bob") || strings.Contains(e.err, "was removed") {
		t.Errorf("a removed user is left: %v", e)
	}
	l.run("user", "rm", "bob", "--yes").expectRefused(t, exitFailed, "there is no user", "user list")
}

// TestCredentials reads an access key from the environment and from the user's file, and refuses what is
// none, without a word of it in the message.
func TestCredentials(t *testing.T) {
	const id, secret = "ICAAAAAAAAAAAAAAAAAA", "abcdefghijklmnopqrstuvwxyzabcdefghijklmn"
	const otherID = "ICBAAAAAAAAAAAAAAAAA"
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	path := filepath.Join(dir, "imgcluster", "credentials.yaml")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	good := "access_key: " + id + "\nsecret_key: " + secret + "\n"
	for _, x := range []struct {
		name        string
		file        string
		mode        os.FileMode
		env, envKey string
		want, err   string
		named       bool
	}{
		{name: "none"},
		{name: "file", file: good, mode: 0o600, want: id},
		{name: "read-only file", file: good, mode: 0o400, want: id},
		{name: "environment", file: good, mode: 0o600, env: otherID, envKey: secret, want: otherID, named: true},
		{name: "ID alone", file: good, mode: 0o600, env: otherID, err: "only one is set"},
		{name: "secret alone", envKey: secret, err: "only one is set"},
		{name: "malformed environment", env: otherID, envKey: secret + "x", err: "has 20 characters"},
		{name: "group", file: good, mode: 0o640, err: "open to others (mode 0640)"},
		{name: "others", file: good, mode: 0o604, err: "open to others (mode 0604)"},
		{name: "no YAML", file: ":\n" + secret, mode: 0o600, err: "not the YAML"},
		{name: "another key", file: good + "user: alice\n", mode: 0o600, err: "not the YAML"},
		{name: "too large", file: good + strings.Repeat("#\n", 4<<10), mode: 0o600, err: "not the YAML"},
		{name: "half", file: "access_key: " + id + "\n", mode: 0o600, err: "has 20 characters"},
		{name: "cut secret", file: good[:len(good)-3] + "\n", mode: 0o600, err: "has 20 characters"},
	} {
		t.Run(x.name, func(t *testing.T) {
			os.Remove(path)
			if x.file != "" {
				if err := os.WriteFile(path, []byte(x.file), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(path, x.mode); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("IMGCLUSTER_ACCESS_KEY", x.env)
			t.Setenv("IMGCLUSTER_SECRET_KEY", x.envKey)
			key, named, err := accessKey()
			if x.err == "" {
				if err != nil || key.ID != x.want || named != x.named || x.want != "" && key.Secret.Reveal() != secret {
					t.Errorf("%+v, %v, %v", key, named, err)
				}
				return
			}
			var b strings.Builder
			(&env{}).printError(&b, err)
			if err == nil || exitStatus(err) != exitUsage || !strings.Contains(b.String(), x.err) ||
				!strings.Contains(b.String(), "hint: ") || strings.Contains(b.String(), secret[:20]) {
				t.Errorf("%v: %s", err, b.String())
			}
			if x.mode&0o077 != 0 && !strings.Contains(b.String(), "chmod 600 "+path) {
				t.Errorf("without the chmod: %s", b.String())
			}
		})
	}
}

// TestCredentialsOfNewerProgram: a setting that this program does not know is refused by what the file may
// have.
func TestCredentialsOfNewerProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials.yaml")
	must(t, os.WriteFile(path, []byte("access_key: A\nsecret_key: B\nversion: 2\n"), 0o600))
	_, err := readCredentials(path)
	if image.HintOf(err) == "" || !strings.Contains(fmt.Sprint(err), "is not the YAML of an access key") {
		t.Errorf("it is refused with %v", err)
	}
}
