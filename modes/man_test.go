package modes

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"imgcluster/config"
)

// TestManualPages: there is a page of every command and one of the settings, each with what belongs into it,
// the same whenever and wherever they are made, and man shows them without a warning.
func TestManualPages(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	call(t, "man", filepath.Join(dir, "one")).expectErr(t, 0, " pages are in ")
	t.Setenv(config.EnvConfig, filepath.Join(dir, "other.yaml"))
	t.Setenv("TZ", "Asia/Tokyo")
	call(t, "man", filepath.Join(dir, "two"))
	pages := readFolder(t, filepath.Join(dir, "one"))
	if !maps.Equal(pages, readFolder(t, filepath.Join(dir, "two"))) {
		t.Error("made again, the pages differ")
	}
	settings := pages["imgcluster.yaml.5"]
	for _, s := range config.Default().Settings() {
		if key := "\n\\fB" + roff(s.Key) + "\\fP\n"; !strings.Contains(settings, key) {
			t.Errorf("imgcluster.yaml(5) lacks %s", s.Key)
		}
	}
	count := 1
	commandsOf(newRoot(&env{}), func(c *cobra.Command) {
		if c.Name() == "help" {
			return
		}
		count++
		page := pages[pageName(c)+".1"]
		at := 0
		for _, part := range []string{
			" 1 \"2023-11-14\" ", "\n.SH \"NAME\"\n" + roff(pageName(c)) + ` \- `, "\n.SH \"SYNOPSIS\"\n",
			"\n.SH \"DESCRIPTION\"\n", "\n.SH \"EXIT STATUS\"\n", "\n.SH \"EXAMPLES\"\n", "\n.SH \"SEE ALSO\"\n",
		} {
			i := strings.Index(page[at:], part)
			if i < 0 {
				t.Errorf("%s(1) lacks %q", pageName(c), part)
				continue
			}
			at += i
		}
		if strings.Contains(page, mark) {
			t.Errorf("%s(1) has a mark", pageName(c))
		}
	})
	if len(pages) != count || count < 40 {
		t.Errorf("%d pages, want %d", len(pages), count)
	}
	expectNoWarnings(t, filepath.Join(dir, "one"))
}

func readFolder(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	texts := map[string]string{}
	for _, e := range entries {
		texts[e.Name()] = string(read(t, filepath.Join(dir, e.Name())))
	}
	return texts
}

// expectNoWarnings has groff read all pages in a folder.
func expectNoWarnings(t *testing.T, dir string) {
	t.Helper()
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("no groff")
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*"))
	must(t, err)
	long := regexp.MustCompile(`(?m)^.*can't break line\n`) // a default that is wider than a line
	for _, page := range pages {
		cmd := exec.Command(groff, "-man", "-ww", "-z", "-Kutf8", "-Tutf8", page)
		if out, err := cmd.CombinedOutput(); err != nil || len(long.ReplaceAll(out, nil)) > 0 {
			t.Errorf("%s: %v %s", filepath.Base(page), err, out)
		}
	}
}

// A line that begins with a dot is no macro, and nothing of a text is an escape.
func TestRoff(t *testing.T) {
	for text, want := range map[string]string{
		".TH evil":       `\&.TH evil`,
		"a\n.so /etc":    "a\n\\&.so /etc",
		"'br":            `\(aqbr`,
		`\fB--no-color`:  `\efB\-\-no\-color`,
		"~/`x`^":         `\(ti/\(gax\(ga\(ha`,
		strong("x-y.."):  `\fBx\-y..\fP`,
		"images/…/*.img": "images/…/*.img",
	} {
		if got := styled(text); got != want {
			t.Errorf("%q is %q, not %q", text, got, want)
		}
	}
}

// What man cannot do is refused.
func TestManualRefused(t *testing.T) {
	t.Chdir(t.TempDir())
	must(t, os.WriteFile("file", nil, 0o600))
	call(t, "man", "file").expectRefused(t, exitUsage, "cannot be made")
	call(t, "man").expectRefused(t, exitUsage, "missing an argument")
	t.Setenv("SOURCE_DATE_EPOCH", "yesterday")
	call(t, "man", "pages").expectRefused(t, exitUsage, "SOURCE_DATE_EPOCH")
	if entries, err := os.ReadDir("."); err != nil || len(entries) != 1 {
		t.Errorf("it leaves %v %v", slices.Collect(slices.Values(entries)), err)
	}
}
