package modes

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestServerShortOfFiles starts a node with too few file descriptors, from those with which the program can
// hardly run up to one too few: it is refused before anything is made, with the figures.
func TestServerShortOfFiles(t *testing.T) {
	dir := t.TempDir()
	writeConfig(t, dir, "")
	for _, n := range []int{12, 14, 20, 28, 64, 256, 2815} {
		cmd := program(t, dir, "server", "--id", "1")
		sh, err := exec.LookPath("sh")
		if err != nil {
			t.Skip(err)
		}
		cmd.Args = append([]string{"sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, n), cmd.Path}, cmd.Args[1:]...)
		cmd.Path = sh
		e := finish(t, cmd)
		if e.status != exitUsage || !strings.Contains(e.err, fmt.Sprintf("may have %d open files and needs 2816", n)) ||
			!strings.Contains(e.err, "hint: raise the hard limit of open files to 2816") || strings.Contains(e.err, "--replace") {
			t.Errorf("with %d descriptors: %v", n, e)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("a refused start left %v, %v", left, err)
	}
}
