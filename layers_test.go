package main

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module     = "imgcluster"
	layersFile = "CONTRIBUTING.md" // has the tables
	leaf       = "leaf"
)

// row is a line of one of the tables: a package or library and what the last column says of it.
type row struct {
	line    int
	allowed []string // packages, or patterns with * for a part of the path
	all     bool     // may import everything
	leaves  bool     // may import the leaves
	leaf    bool
}

// layers are the tables of layersFile: the packages, and the libraries by import path.
type layers struct {
	packages  map[string]row
	libraries map[string]row
}

var (
	code   = regexp.MustCompile("`([^`]+)`")
	strong = regexp.MustCompile(`\*(\w+)\*`)
)

func readLayers(t *testing.T) layers {
	text, err := os.ReadFile(layersFile)
	if err != nil {
		t.Fatal(err)
	}
	l := layers{map[string]row{}, map[string]row{}}
	table := map[string]row(nil)
	for i, line := range strings.Split(string(text), "\n") {
		cells := strings.Split(strings.Trim(line, "| "), "|")
		switch strings.TrimSpace(cells[0]) {
		case "package":
			table = l.packages
			continue
		case "library":
			table = l.libraries
			continue
		case "":
			table = nil
		}
		if table == nil {
			continue
		}
		last := cells[len(cells)-1]
		r := row{line: i + 1, all: strings.TrimSpace(last) == "all", leaves: strings.Contains(last, "leaves")}
		if m := strong.FindStringSubmatch(last); m != nil && m[1] == leaf {
			r.leaf, r.leaves = true, true
		}
		for _, m := range code.FindAllStringSubmatch(last, -1) {
			r.allowed = append(r.allowed, m[1])
		}
		for _, m := range code.FindAllStringSubmatch(cells[0], -1) {
			table[m[1]] = r
		}
	}
	if len(l.packages) == 0 || len(l.libraries) == 0 {
		t.Fatalf("%s has no table of packages or of libraries", layersFile)
	}
	return l
}

// find returns the row of a package: its own, or that of a pattern.
func (l layers) find(pkg string) (row, bool) {
	if r, ok := l.packages[pkg]; ok {
		return r, true
	}
	for pattern, r := range l.packages {
		if matches(pattern, pkg) {
			return r, true
		}
	}
	return row{}, false
}

// matches reports whether a package's path has the form of a pattern, in which * stands for one part.
func matches(pattern, pkg string) bool {
	ok, err := path.Match(pattern, pkg)
	return ok && err == nil
}

// allows reports whether a package may import another one of this module.
func (l layers) allows(from row, to string) bool {
	if from.all || from.leaves && l.packages[to].leaf {
		return true
	}
	return slices.ContainsFunc(from.allowed, func(pattern string) bool { return matches(pattern, to) })
}

// TestLayers holds the table of packages in CONTRIBUTING.md: what a package imports, other than in tests,
// is what its row allows, a library with one user has no other, and no row is left without a package.
func TestLayers(t *testing.T) {
	l := readLayers(t)
	seen := map[string]bool{}
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && file != "." {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		pkg := filepath.ToSlash(filepath.Dir(file))
		r, ok := l.find(pkg)
		if !ok {
			t.Errorf("%s has no row in the table of packages: add one to %s", pkg, layersFile)
			return fs.SkipDir
		}
		seen[pkg] = true
		for at, imported := range importsOf(t, file) {
			l.expectAllowed(t, pkg, r, at, imported)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pattern, r := range l.packages {
		packages := slices.Collect(maps.Keys(seen))
		if !slices.ContainsFunc(packages, func(pkg string) bool { return matches(pattern, pkg) }) {
			t.Errorf("%s:%d: there is no package %s", layersFile, r.line, pattern)
		}
	}
}

// importsOf returns the import paths of a file by their places in it.
func importsOf(t *testing.T, file string) map[string]string {
	t.Helper()
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	imports := map[string]string{}
	for _, spec := range f.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		at := set.Position(spec.Pos())
		imports[fmt.Sprintf("%s:%d", at.Filename, at.Line)] = imported
	}
	return imports
}

func (l layers) expectAllowed(t *testing.T, pkg string, r row, at, imported string) {
	t.Helper()
	if to, ok := strings.CutPrefix(imported, module+"/"); ok {
		if !l.allows(r, to) {
			t.Errorf("%s imports %s, which %s:%d does not allow %s", at, to, layersFile, r.line, pkg)
		}
		return
	}
	for library, only := range l.libraries {
		uses := imported == library || strings.HasPrefix(imported, library+"/")
		if uses && !slices.Contains(only.allowed, pkg) {
			t.Errorf("%s imports %s, which %s:%d leaves to %s", at, imported, layersFile, only.line, only.allowed)
		}
	}
}
