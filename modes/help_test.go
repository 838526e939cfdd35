package modes

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"imgcluster/cluster/image"
	"imgcluster/genimg"
	"imgcluster/modes/stress"
	"imgcluster/modes/term"
)

// The help of every command fits a terminal.
func TestHelpFits(t *testing.T) {
	var help func(c *cobra.Command)
	help = func(c *cobra.Command) {
		var out bytes.Buffer
		c.SetOut(&out)
		if err := c.Help(); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			if columnsOf(line) > term.Width {
				t.Errorf("%s --help: %d columns: %s", c.CommandPath(), columnsOf(line), line)
			}
		}
		for _, sub := range c.Commands() {
			help(sub)
		}
	}
	help(newRoot(&env{}))
}

// A folder that cannot be made is a usage error whose hint names the option.
func TestFolderRefused(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "file", "x") // even root cannot make a folder in a file
	spec := genimg.Spec{Seed: 1, MinPixels: 200, MaxPixels: 400}
	made := genimg.Generate(t.Context(), spec, 1, "file", 1, nil)
	t.Setenv("TMPDIR", missing)
	demo := runDemo(t.Context(), &env{}, stressOptions{Options: stress.Options{Count: 1, Spec: spec}})
	for name, test := range map[string]struct {
		err  error
		hint string
	}{
		"generate": {made, "--out"},
		"demo":     {demo, "TMPDIR"},
		"get":      {writeFile(filepath.Join(missing, "y"), func(io.Writer) error { return nil }), "-o"},
	} {
		if got := exitStatus(test.err); got != exitUsage || !strings.Contains(image.HintOf(test.err), test.hint) {
			t.Errorf("%s: %v (hint %s) gives %d", name, test.err, image.HintOf(test.err), got)
		}
	}
}
