package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// columnsMax is the longest line of a document.
const columnsMax = 110

// TestDocumentLines holds the lines of all documents to columnsMax. A row of a table cannot be broken, nor
// can a line that is a single word.
func TestDocumentLines(t *testing.T) {
	for file, text := range documents(t) {
		for i, line := range strings.Split(text, "\n") {
			words := strings.TrimLeft(strings.TrimSpace(line), "-*>0123456789. ")
			columns := utf8.RuneCountInString(line)
			if columns > columnsMax && !strings.HasPrefix(words, "|") && strings.Contains(words, " ") {
				t.Errorf("%s:%d: %d columns, at most %d are wanted", file, i+1, columns, columnsMax)
			}
		}
	}
}

// TestDocumentPaths finds every file and folder of this repository that a document names.
func TestDocumentPaths(t *testing.T) {
	path := regexp.MustCompile("`((?:cluster|config|crypto|genimg|modes|testdata)/[\\w./*-]*)`")
	for file, text := range documents(t) {
		if file == "CHANGELOG.md" { // says what was
			continue
		}
		for _, m := range path.FindAllStringSubmatch(text, -1) {
			if found, err := filepath.Glob(m[1]); err != nil || len(found) == 0 {
				t.Errorf("%s names %s, which is not there: %v", file, m[1], err)
			}
		}
	}
}

// TestThreatsAreTested finds every test that the list of threats names, and each threat names one.
func TestThreatsAreTested(t *testing.T) {
	there := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err := filepath.WalkDir(".", func(file string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(file, "_test.go") {
			return err
		}
		text, err := os.ReadFile(file)
		for _, m := range function.FindAllSubmatch(text, -1) {
			there[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	name, rows := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`"), 0
	for line := range strings.Lines(documents(t)["crypto/THREATS.md"]) {
		row := strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| ---") &&
			!strings.HasPrefix(line, "| asset")
		named := name.FindAllStringSubmatch(line, -1)
		if row && len(named) == 0 {
			t.Errorf("no test shows that this holds: %.60s", line)
		}
		for _, m := range named {
			if !there[m[1]] {
				t.Errorf("there is no %s", m[1])
			}
		}
		if row {
			rows++
		}
	}
	if rows < 20 {
		t.Errorf("only %d threats", rows)
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)]*)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	anchor  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// TestDocumentLinks follows the links between documents, also to their headings.
func TestDocumentLinks(t *testing.T) {
	texts := documents(t)
	for file, text := range texts {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target, section, _ := strings.Cut(m[1], "#")
			to := file
			if target != "" {
				to = filepath.Join(filepath.Dir(file), target)
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s links to %s: %v", file, m[1], err)
			} else if section != "" && !hasHeading(texts[to], section) {
				t.Errorf("%s links to %s, which has no such heading", file, m[1])
			}
		}
	}
}

// hasHeading reports whether a text has a heading with this anchor, in the form of GitHub.
func hasHeading(text, section string) bool {
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		if strings.ReplaceAll(anchor.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-") == section {
			return true
		}
	}
	return false
}

// documents returns the texts of all Markdown files by path, other than what tests compare output with.
func documents(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		golden := filepath.Base(filepath.Dir(file)) == "testdata" && d.Name() != "README.md"
		if err != nil || d.IsDir() || filepath.Ext(file) != ".md" || golden {
			return err
		}
		text, err := os.ReadFile(file)
		texts[file] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts
}
