package crypto

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// keyPathEnv makes the test binary a process that loads or creates the key file there and prints
// its ID, once its standard input ends.
const keyPathEnv = "IMGCLUSTER_TEST_KEY_PATH"

func TestMain(m *testing.M) {
	if path := os.Getenv(keyPathEnv); path != "" {
		os.Stdin.Read(make([]byte, 1))
		k, err := LoadOrCreateMasterKey(path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Print(k.ID())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestCreateAndLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "deep", "master.key")
	made := must[*MasterKey](t)(CreateMasterKey(path))
	loaded := must[*MasterKey](t)(LoadMasterKey(path))
	if made.ID() != loaded.ID() || !made.key.Equal(loaded.key) {
		t.Error("another key was loaded")
	}
	if mode := must[os.FileInfo](t)(os.Stat(path)).Mode(); mode != 0o400 {
		t.Errorf("file mode %v, want 0400", mode)
	}
	for dir := filepath.Dir(path); filepath.Base(dir) != "new"; dir = filepath.Dir(dir) {
		if mode := must[os.FileInfo](t)(os.Stat(dir)).Mode().Perm(); mode != 0o700 {
			t.Errorf("mode of %s %v, want 0700", dir, mode)
		}
	}
	if entries := must[[]os.DirEntry](t)(os.ReadDir(filepath.Dir(path))); len(entries) != 1 {
		t.Errorf("a temporary file is left: %v", entries)
	}
	text := string(must[[]byte](t)(os.ReadFile(path)))
	if !strings.HasPrefix(text, "# ") || !strings.Contains(text, "\n"+keyLineMagic+" "+made.ID()+" ") {
		t.Errorf("the file is\n%s", text)
	}
	fromEnv := must[*MasterKey](t)(MasterKeyFromEnv(made.line()))
	if !fromEnv.key.Equal(made.key) {
		t.Error("the line alone gives another key")
	}
}

func TestCreateNeverOverwrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := CreateMasterKey(path)
	wantKind(t, err, ErrKeyExists)
	if got := must[[]byte](t)(os.ReadFile(path)); string(got) != "precious" {
		t.Errorf("the file is now %q", got)
	}
	if entries := must[[]os.DirEntry](t)(os.ReadDir(filepath.Dir(path))); len(entries) != 1 {
		t.Errorf("a temporary file is left: %v", entries)
	}
}

func TestCreateWhereItCannot(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := CreateMasterKey(filepath.Join(file, "master.key"))
	wantKind(t, err, ErrKeyUnwritable)
	_, err = LoadOrCreateMasterKey(filepath.Join(file, "master.key"))
	wantKind(t, err, ErrKeyUnreadable)
}

func TestCreateOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dir", "master.key")
	const together = 16
	errs := make([]error, together)
	var wg sync.WaitGroup
	for i := range together {
		wg.Go(func() { _, errs[i] = CreateMasterKey(path) })
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
		} else {
			wantKind(t, err, ErrKeyExists)
		}
	}
	if made != 1 {
		t.Errorf("%d of %d created the file", made, together)
	}
}

// Three processes that start at the same moment end up with one key.
func TestLoadOrCreateByProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dir", "master.key")
	const processes = 3
	var outs [processes]bytes.Buffer
	var cmds [processes]*exec.Cmd
	gate, open, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	for i := range cmds {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), keyPathEnv+"="+path)
		c.Stdin, c.Stdout, c.Stderr = gate, &outs[i], &outs[i]
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		cmds[i] = c
	}
	gate.Close()
	open.Close() // all three see the end of their input
	want := ""
	for i, c := range cmds {
		if err := c.Wait(); err != nil {
			t.Fatalf("process %d: %v: %s", i, err, outs[i].String())
		}
		if want == "" {
			want = must[*MasterKey](t)(LoadMasterKey(path)).ID()
		}
		if got := outs[i].String(); got != want {
			t.Errorf("process %d has key %s, the file %s", i, got, want)
		}
	}
}

func TestLoadMasterKeyRefuses(t *testing.T) {
	m := must[*MasterKey](t)(newMasterKey(testKey(1)))
	other := must[*MasterKey](t)(newMasterKey(testKey(2)))
	key := base64.StdEncoding.EncodeToString(m.key.b()[:])
	zero := base64.StdEncoding.EncodeToString(make([]byte, keyBytes))
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
		kind error
	}{
		"empty":         {"", 0o400, ErrKeyMalformed},
		"only comments": {"# a\n\n", 0o400, ErrKeyMalformed},
		"two keys":      {m.line() + "\n" + other.line(), 0o400, ErrKeyMalformed},
		"two fields":    {keyLineMagic + " " + key, 0o400, ErrKeyMalformed},
		"four fields":   {m.line() + " x", 0o400, ErrKeyMalformed},
		"later version": {strings.Replace(m.line(), "-v1", "-v2", 1), 0o400, ErrKeyMalformed},
		"short key":     {keyLineMagic + " " + m.ID() + " " + key[:40], 0o400, ErrKeyMalformed},
		"not base64": {
			keyLineMagic + " " + m.ID() + " " + strings.Repeat("*", 44), 0o400, ErrKeyMalformed,
		},
		"zero key":        {keyLineMagic + " " + m.ID() + " " + zero, 0o400, ErrKeyMalformed},
		"ID of another":   {strings.Replace(m.line(), m.ID(), other.ID(), 1), 0o400, ErrKeyMismatch},
		"changed key":     {keyLineMagic + " " + m.ID() + " B" + key[1:], 0o400, ErrKeyMismatch},
		"too large":       {m.line() + strings.Repeat("\n", keyFileBytesMax), 0o400, ErrKeyTooLarge},
		"group can read":  {m.line(), 0o440, ErrKeyMode},
		"others can read": {m.line(), 0o604, ErrKeyMode},
		"group can write": {m.line(), 0o620, ErrKeyMode},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "master.key")
			err := errors.Join(os.WriteFile(path, []byte(c.text), 0o600), os.Chmod(path, c.mode))
			if err != nil {
				t.Fatal(err)
			}
			_, err = LoadMasterKey(path)
			wantKind(t, err, c.kind)
			var e *Error
			if errors.As(err, &e); strings.Contains(e.Error()+e.Hint(), key[:8]) {
				t.Errorf("the error shows the key: %v", e)
			}
			if name == "later version" && e.Hint() != hintNewer {
				t.Errorf("the next step is %q", e.Hint())
			}
			if after := must[[]byte](t)(os.ReadFile(path)); string(after) != c.text {
				t.Error("the file was changed")
			}
			_, err = LoadOrCreateMasterKey(path)
			wantKind(t, err, c.kind)
			if c.kind == ErrKeyMalformed {
				_, err = MasterKeyFromEnv(c.text)
				wantKind(t, err, c.kind)
			}
		})
	}
}

func TestLoadMasterKeyWithoutFile(t *testing.T) {
	dir := t.TempDir()
	_, err := LoadMasterKey(filepath.Join(dir, "master.key"))
	wantKind(t, err, ErrKeyMissing)
	if e := (*Error)(nil); !errors.As(err, &e) || !strings.Contains(e.Hint(), MasterKeyEnv) {
		t.Errorf("the hint does not name %s: %v", MasterKeyEnv, err)
	}
	_, err = LoadMasterKey(dir)
	wantKind(t, err, ErrKeyUnreadable)
}

// A link to nowhere is neither a file to load nor a free name: the bounded tries end.
func TestLoadOrCreateWithDanglingLink(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	if err := os.Symlink(path+".missing", path); err != nil {
		t.Fatal(err)
	}
	_, err := LoadOrCreateMasterKey(path)
	wantKind(t, err, ErrKeyExists)
}

func TestKeyFileAsPeopleKeepIt(t *testing.T) {
	m := must[*MasterKey](t)(newMasterKey(testKey(1)))
	for _, text := range []string{
		m.line(),
		"\r\n# mine\r\n  " + m.line() + "\r\n\r\n",
		strings.ReplaceAll(m.line(), " ", "\t") + "\n",
	} {
		if got, err := MasterKeyFromEnv(text); err != nil || got.ID() != m.ID() {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

// Editors of Windows, and PowerShell's >, write a mark and UTF-16.
func TestKeyFileOfWindows(t *testing.T) {
	m := must[*MasterKey](t)(newMasterKey(testKey(1)))
	lines := "# mine\r\n" + m.line() + "\r\n"
	wide := func(first, second func(byte) byte) (s string) {
		for _, b := range []byte(lines) {
			s += string([]byte{first(b), second(b)})
		}
		return s
	}
	zero, same := func(byte) byte { return 0 }, func(b byte) byte { return b }
	for name, text := range map[string]string{
		"UTF-8 with a mark":      "\xef\xbb\xbf" + lines,
		"UTF-16LE":               "\xff\xfe" + wide(same, zero),
		"UTF-16BE":               "\xfe\xff" + wide(zero, same),
		"an odd byte at the end": "\xff\xfe" + wide(same, zero) + "\x00",
	} {
		path := filepath.Join(t.TempDir(), "master.key")
		if err := os.WriteFile(path, []byte(text), 0o400); err != nil {
			t.Fatal(err)
		}
		if got, err := LoadMasterKey(path); err != nil || got.ID() != m.ID() {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	_, err := MasterKeyFromEnv(wide(same, zero))
	if wantKind(t, err, ErrKeyMalformed); !strings.Contains(err.Error(), "UTF-16 without a mark") {
		t.Errorf("UTF-16 without a mark: %v", err)
	}
	for _, text := range []string{"\xff\xfe", "\xfe\xffx", "\xef\xbb\xbf"} {
		_, err := MasterKeyFromEnv(text)
		wantKind(t, err, ErrKeyMalformed)
	}
}
