package exchange

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"imgcluster/cluster/image"
)

func TestLayout(t *testing.T) {
	long := strings.Repeat("n", partBytesMax+1) + ".jpg"
	for name, test := range map[string]struct {
		folds bool
		names []string
		other []string // of names, those whose file is not their name
	}{
		"folders": {false, []string{"a", "a!", "a/b", "a/c", "b", "b/c/d", "b/c"}, []string{"a", "b", "b/c"}},
		"own":     {false, []string{manifestName, "IMGCLUSTER-EXPORT", otherDir + "/x", "x/" + sumsName}, nil},
		"long": {
			false, []string{long, "x/" + long, strings.Repeat("n/", 500) + "n"}, []string{long, "x/" + long},
		},
		"hidden":      {false, []string{".a", "b/.c", "...", "b/...d"}, nil},
		"capitals":    {false, []string{"A.jpg", "a.jpg", "Ä", "ä"}, nil},
		"folded":      {true, []string{"A.jpg", "a.jpg", "Ä", "ä", "ä", "x", "x.", "y ", "y"}, nil},
		"folded dirs": {true, []string{"A", "a/b", "B/c", "b/C", "b/d"}, []string{"A", "b/C"}},
	} {
		l := newLayout(test.folds)
		for _, n := range test.names {
			l.expect(n)
		}
		var other []string
		for _, n := range test.names {
			if file := l.place(n); file != n {
				other = append(other, n)
			}
		}
		switch name {
		case "own":
			test.other = test.names[:3]
		case "folded":
			test.other = []string{"a.jpg", "ä", "ä", "x.", "y"}
		}
		if strings.Join(other, "|") != strings.Join(test.other, "|") {
			t.Errorf("%s: %q are not under their names, want %q", name, other, test.other)
		}
	}
}

// TestLayoutKeeps: what an export has already stays where it is, and what comes later makes way.
func TestLayoutKeeps(t *testing.T) {
	l := newLayout(false)
	l.use("a")
	l.expect("a/b")
	if file := l.place("a/b"); file != otherFile("a/b") {
		t.Errorf("a/b is in %s beside the file a", file)
	}
	if file := otherFile("x/photo.JPG"); !strings.HasSuffix(file, ".JPG") || !isOwn(file) {
		t.Errorf("the extension is lost: %s", file)
	}
	if file := otherFile("x.a/b.c?d"); strings.ContainsAny(file, "?") {
		t.Errorf("a character that some file systems refuse: %s", file)
	}
}

// TestLayoutDistinct: of any names no two have one file, and no file is a folder of another.
func TestLayoutDistinct(t *testing.T) {
	name := rapid.StringMatching(`([aAbB.]|ß|ss|é|é){1,3}(/([aAbB. ]|ß){1,2}){0,3}`)
	rapid.Check(t, func(t *rapid.T) {
		l := newLayout(rapid.Bool().Draw(t, "folds"))
		names := rapid.SliceOfDistinct(name, rapid.ID[string]).Draw(t, "names")
		old := rapid.IntRange(0, len(names)).Draw(t, "old")
		seen := map[string]string{}
		for _, part := range [][]string{names[:old], names[old:]} {
			for _, n := range part {
				l.expect(n)
			}
			for _, n := range part {
				file := l.place(n)
				key := l.key(file)
				if other, ok := seen[key]; ok {
					t.Fatalf("%q and %q are both in %q", n, other, file)
				}
				seen[key] = n
			}
		}
		for key, n := range seen {
			for _, dir := range parents(key) {
				if other, ok := seen[dir]; ok {
					t.Fatalf("the folder %q of %q is the file of %q", dir, n, other)
				}
			}
		}
	})
}

func writeManifest(t *testing.T, text string) *os.Root {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, manifestName), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func TestManifest(t *testing.T) {
	sum := image.Digest{1}
	m := &manifest{
		Header:   Header{Schema: schema, Cluster: "c", User: "alice"},
		complete: true,
		images: map[string]*entry{
			"b":    {User: "alice", Name: "b", Bytes: 3, SHA256: sum, Gone: true},
			"a/<b": {User: "alice", Name: "a/<b", Version: 7, Bytes: 5, SHA256: sum, File: otherFile("a/<b")},
			`x\y`:  {User: "alice", Name: `x\y`, Bytes: 6, SHA256: sum},
		},
	}
	var text bytes.Buffer
	if err := m.write(&text); err != nil {
		t.Fatal(err)
	}
	whole := text.String()
	got, err := readManifest(writeManifest(t, whole))
	if err != nil || !got.complete || got.bad != 0 || len(got.images) != 3 || got.Header != m.Header ||
		*got.images["a/<b"] != *m.images["a/<b"] || got.images[`x\y`].file() != `x\y` {
		t.Errorf("%+v, %v of\n%s", got, err, whole)
	}
	if !strings.Contains(whole, `"end":{"images":2,"bytes":11,`) {
		t.Errorf("an image that is gone counts in\n%s", whole)
	}
	var sums bytes.Buffer
	if err := m.writeSums(&sums); err != nil {
		t.Fatal(err)
	}
	want := sum.String() + "  " + otherFile("a/<b") + "\n" + `\` + sum.String() + `  x\\y` + "\n"
	if sums.String() != want {
		t.Errorf("sums:\n%swant:\n%s", &sums, want)
	}
	lines := strings.SplitAfter(whole, "\n")
	for name, test := range map[string]struct {
		text        string
		bad, images int
		err         bool
	}{
		"cut":         {text: whole[:len(whole)-9], images: 3},
		"no end":      {text: strings.Join(lines[:3], ""), images: 2},
		"bad line":    {text: lines[0] + "{\n" + lines[1] + lines[4], bad: 2, images: 1},
		"bad name":    {text: lines[0] + `{"name":"../x"}` + "\n" + lines[1], bad: 2, images: 1},
		"long line":   {text: lines[0] + lines[1] + strings.Repeat("x", lineBytesMax+1), bad: 3, images: 1},
		"last counts": {text: lines[0] + lines[1] + lines[1], images: 1},
		"empty":       {err: true},
		"no header":   {text: lines[1], err: true},
		"newer":       {text: strings.Replace(lines[0], `"schema":1`, `"schema":2`, 1), err: true},
	} {
		got, err := readManifest(writeManifest(t, test.text))
		switch {
		case (err != nil) != test.err:
			t.Errorf("%s: %v", name, err)
		case err == nil && (got.bad != test.bad || len(got.images) != test.images || got.complete):
			t.Errorf("%s: %+v", name, got)
		case err != nil && !errors.As(err, new(*refused)):
			t.Errorf("%s: no next step: %v", name, err)
		}
	}
}
