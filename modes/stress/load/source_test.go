package load

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"imgcluster/cluster/image"
	"imgcluster/modes/runlog"
)

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.jpg", "a.png", "c d.webp"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("image "+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files, err := OpenFiles(dir, 100)
	if err != nil || files.Len() != 3 {
		t.Fatalf("%v, %+v", err, files)
	}
	var mu sync.Mutex
	var got []string
	put := func(_ context.Context, up Upload) (Outcome, error) {
		b, err := io.ReadAll(up.Body())
		mu.Lock()
		defer mu.Unlock()
		got = append(got, up.Name+"="+string(b))
		return good(up), err
	}
	logged, err := drive(t, t.Context(), Options{
		Run:    runlog.Run{Count: 7, Concurrency: 1},
		Source: files,
		Target: target{put: put},
	})
	want := []string{
		"a.png=image a.png",
		"b.jpg=image b.jpg",
		"c d.webp=image c d.webp",
		"2/a.png=image a.png",
		"2/b.jpg=image b.jpg",
		"2/c d.webp=image c d.webp",
		"3/a.png=image a.png",
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, uploads %q", err, got)
	}
	if u := logged["upload"][0]; u.Bytes != 11 || u.Class != "file" {
		t.Errorf("record %+v", u)
	}

	if err := os.Remove(filepath.Join(dir, "b.jpg")); err != nil {
		t.Fatal(err)
	}
	logged, err = drive(t, t.Context(), Options{
		Run:    runlog.Run{Count: 3, Concurrency: 1},
		Source: files,
		Target: target{put: put},
	})
	missing := logged["upload"][1]
	if err != nil || missing.OK || missing.Name != "b.jpg" || !strings.Contains(missing.Error, "no such file") {
		t.Errorf("%v, the upload of a file that was deleted: %+v", err, missing)
	}
	if next := logged["upload"][2]; !next.OK {
		t.Errorf("the upload after it: %+v", next)
	}
}

// Files in subfolders and links to files are sent too. No file gets the name of another one in a later round.
func TestNestedFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.png", "2/a.png", "_3/x/b.png"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a.png", filepath.Join(dir, "link.png")); err != nil {
		t.Fatal(err)
	}
	files, err := OpenFiles(dir, 100)
	if err != nil || files.Len() != 4 || files.Bytes(9) != 2*(5+7+10+5)+7 {
		t.Fatalf("%v, %+v", err, files)
	}
	seen := map[string]bool{}
	for n := int64(1); n <= 30; n++ {
		img, err := files.Open(t.Context(), n, nil)
		if err != nil {
			t.Fatal(err)
		}
		img.Close()
		if seen[img.Name] {
			t.Errorf("two images are named %s", img.Name)
		}
		seen[img.Name] = true
	}
	if !seen["2/a.png"] || !seen["__2/2/a.png"] {
		t.Errorf("names %v", seen)
	}
}

func TestBadFolders(t *testing.T) {
	folder := func(file string, size int) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, file), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for name, dir := range map[string]string{
		"too large":         folder("a.png", 101),
		"missing":           filepath.Join(t.TempDir(), "none"),
		"no files":          t.TempDir(),
		"empty file":        folder("a.png", 0),
		"control character": folder("a\tb.png", 1),
	} {
		if _, err := OpenFiles(dir, 100); image.KindOf(err) != image.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
