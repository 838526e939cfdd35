package crypto

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const (
	pythonReader = "testdata/reader.py"
	// pythonUnable is the reader's exit status where Python lacks what it needs.
	pythonUnable = 77
)

// python runs the reader with the first Python that can. It skips the test when there is none.
func python(t *testing.T, stdin string, args ...string) []byte {
	t.Helper()
	why := "there is no python3"
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		var stdout, stderr bytes.Buffer
		cmd := exec.CommandContext(t.Context(), path, append([]string{"-I", pythonReader}, args...)...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader([]byte(stdin)), &stdout, &stderr
		var exit *exec.ExitError
		switch err := cmd.Run(); {
		case err == nil:
			return stdout.Bytes()
		case errors.As(err, &exit) && exit.ExitCode() == pythonUnable:
			why = stderr.String()
		default:
			t.Fatalf("%v\n%s%s", err, &stdout, &stderr)
		}
	}
	t.Skipf("%s; install python3-cryptography", why)
	return nil
}

// TestPythonReadsTheVectors has a reader that was written from FORMAT.md alone agree with every vector: what
// it reads, and why it refuses the rest.
func TestPythonReadsTheVectors(t *testing.T) {
	got := string(python(t, "", vectorsFile))
	if want := fmt.Sprintf("%d vectors, 0 not as expected\n", makeVectors(t).count()); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestPythonDecrypts has it decrypt files of now, with random keys and salts.
func TestPythonDecrypts(t *testing.T) {
	for _, x := range []struct{ size, segment int }{
		{0, 0}, {70_000, 1000}, {3 << 20, 128 << 10}, {1<<20 + 5, 0},
	} {
		k, plain := NewKey(), testPlain(x.size)
		path := filepath.Join(t.TempDir(), "copy.img")
		if err := os.WriteFile(path, encrypt(t, k, testFields(x.size, x.segment), plain), 0o600); err != nil {
			t.Fatal(err)
		}
		got := python(t, hex.EncodeToString(k.b()[:]), "--decrypt", path)
		if !bytes.Equal(got, plain) {
			t.Errorf("%d bytes in segments of %d: %d bytes that differ", x.size, x.segment, len(got))
		}
	}
}
