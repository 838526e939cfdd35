package modes

import (
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"imgcluster/config"
)

// documents returns the texts of the repository's documents by path.
func documents(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	must(t, filepath.WalkDir("..", func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" && !strings.Contains(path, "testdata") {
			texts[path] = string(read(t, path))
		}
		return err
	}))
	return texts
}

// The command lines of all documents name commands and options that there are. Those of README.md are run,
// too.
func TestDocumentedCommands(t *testing.T) {
	line := regexp.MustCompile("(?m)(?:^ *|`)(?:\\./)?imgcluster ([a-z][^`\n]*)")
	count := 0
	for path, text := range documents(t) {
		for _, m := range line.FindAllStringSubmatch(text, -1) {
			command, _, _ := strings.Cut(m[1], "|")
			expectCommand(t, path, strings.ReplaceAll(command, "--id N", "--id 1"))
			count++
		}
	}
	if count < 40 {
		t.Errorf("only %d command lines", count)
	}
}

// expectCommand checks that there is a command with the options of a line.
func expectCommand(t *testing.T, path, line string) {
	t.Helper()
	root := newRoot(&env{})
	root.SetOut(io.Discard)
	cmd, args, err := root.Find(strings.Fields(line))
	if err == nil {
		err = cmd.ParseFlags(args)
	}
	if err != nil || cmd == root {
		t.Errorf("%s: imgcluster %s: %v", path, line, err)
	}
}

// The command lines that the dashboard shows beside its buttons name commands and options that there are.
func TestDashboardCommands(t *testing.T) {
	scripts, err := filepath.Glob("../cluster/ui/assets/*.js")
	must(t, err)
	value := regexp.MustCompile(`\$\{[^{}]*\}`) // innermost first
	port := regexp.MustCompile(`\b[NP]\b`)
	line := regexp.MustCompile("['`]imgcluster ([a-z][^'`]*)")
	count := 0
	for _, path := range scripts {
		text := string(read(t, path))
		for value.MatchString(text) {
			text = value.ReplaceAllLiteralString(text, "1")
		}
		for _, m := range line.FindAllStringSubmatch(text, -1) {
			expectCommand(t, path, port.ReplaceAllString(m[1], "1"))
			count++
		}
	}
	if count < 15 {
		t.Errorf("only %d command lines", count)
	}
}

// The settings that documents name are there.
func TestDocumentedSettings(t *testing.T) {
	known := map[string]bool{}
	var sections []string
	for _, s := range config.Default().Settings() {
		section, _, _ := strings.Cut(s.Key, ".")
		known[s.Key] = true
		known[section+".json"] = true // a file, as node.json
		known[section+".jsonl"] = true
		sections = append(sections, section)
	}
	key := regexp.MustCompile("`(?:" + strings.Join(sections, "|") + `)\.[a-z0-9_]+`)
	for path, text := range documents(t) {
		for _, m := range key.FindAllString(text, -1) {
			if !known[strings.TrimPrefix(m, "`")] {
				t.Errorf("%s: no setting %s", path, m)
			}
		}
	}
}
