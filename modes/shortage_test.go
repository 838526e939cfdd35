package modes

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestServerShortOfFiles starts a node with too few file descriptors, from hardly enough for a program up
// to one too few. It is refused before it writes anything, with the figures.
func TestServerShortOfFiles(t *testing.T) {
	dir := t.TempDir()
	writeConfig(t, dir, "")
	for _, n := range []int{12, 14, 20, 28, 64, 256, 2879} {
		cmd := program(t, dir, "server", "--id", "1")
		sh, err := exec.LookPath("sh")
		if err != nil {
			t.Skip(err)
		}
		script := fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, n)
		cmd.Args = append([]string{"sh", "-c", script, cmd.Path}, cmd.Args[1:]...)
		cmd.Path = sh
		e := finish(t, cmd)
		e.expectErr(t, exitUsage, fmt.Sprintf("may have %d open files and needs 2880", n),
			"hint: raise the hard limit")
		if strings.Contains(e.err, "--replace") {
			t.Errorf("with %d descriptors: %v", n, e)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("a refused start left %v, %v", left, err)
	}
}
