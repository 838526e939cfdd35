package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestGoLines holds the lines of all Go files to columnsMax. The exceptions are lines that cannot be broken:
// a field with a tag, a line of a raw string of several lines, and a comment that is a single word, such as a
// link. Generated files are left out.
func TestGoLines(t *testing.T) {
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(file, ".git")) {
			return fs.SkipDir
		}
		if filepath.Ext(file) == ".go" {
			expectGoLines(t, file)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func expectGoLines(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	files := token.NewFileSet()
	parsed, err := parser.ParseFile(files, file, text, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	if ast.IsGenerated(parsed) {
		return
	}
	unbreakable := unbreakableLines(files, parsed)
	for i, line := range strings.Split(string(text), "\n") {
		comment, isComment := strings.CutPrefix(strings.TrimSpace(line), "// ")
		word := isComment && !strings.Contains(comment, " ")
		if columns := utf8.RuneCountInString(line); columns > columnsMax && !unbreakable[i+1] && !word {
			t.Errorf("%s:%d: %d columns, at most %d are wanted", file, i+1, columns, columnsMax)
		}
	}
}

// unbreakableLines returns the numbers of the lines with a field's tag or a part of a raw string of several
// lines.
func unbreakableLines(files *token.FileSet, file *ast.File) map[int]bool {
	lines := map[int]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.Field:
			if n.Tag != nil {
				lines[files.Position(n.Tag.Pos()).Line] = true
			}
		case *ast.BasicLit:
			first := files.Position(n.Pos()).Line
			last := files.Position(n.End()).Line
			for line := first; first < last && line <= last; line++ {
				lines[line] = true
			}
		}
		return true
	})
	return lines
}
