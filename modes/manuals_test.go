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
			root := newRoot(&env{})
			root.SetOut(io.Discard)
			cmd, args, err := root.Find(strings.Fields(strings.ReplaceAll(command, "--id N", "--id 1")))
			if err == nil {
				err = cmd.ParseFlags(args)
			}
			if err != nil || cmd == root {
				t.Errorf("%s: imgcluster %s: %v", path, m[1], err)
			}
			count++
		}
	}
	if count < 40 {
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
