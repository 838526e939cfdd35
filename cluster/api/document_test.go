package api

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"imgcluster/cluster/image"
)

// TestDocument compares the table of errors in API.md with the kinds that there are, and their statuses.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("API.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	row := regexp.MustCompile("(?m)^\\| (\\d{3}) \\| `([a-z-]+)` \\|")
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		if status := strconv.Itoa(image.Kind(m[2]).Status()); status != m[1] {
			t.Errorf("%s has status %s, not %s", m[2], status, m[1])
		}
		documented[m[2]] = true
	}
	kinds := kindsOf(t)
	for _, kind := range kinds {
		if !documented[kind] {
			t.Errorf("API.md does not have %s", kind)
		}
	}
	if len(kinds) != len(documented) {
		t.Errorf("%d kinds, %d documented", len(kinds), len(documented))
	}
}

// kindsOf returns the kinds of errors that there are in the sources.
func kindsOf(t *testing.T) (kinds []string) {
	t.Helper()
	sources, err := filepath.Glob("../image/*.go")
	if err != nil {
		t.Fatal(err)
	}
	kind := regexp.MustCompile(`(?m)^\tKind\w+ +Kind = "([a-z-]+)"`)
	for _, file := range sources {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range kind.FindAllStringSubmatch(string(source), -1) {
			kinds = append(kinds, m[1])
		}
	}
	return kinds
}
