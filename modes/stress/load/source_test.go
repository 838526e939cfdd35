package load

import (
	"context"
	"io"
	"os"
	"path/filepath"
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
	logged, err := drive(t, t.Context(), Options{Run: runlog.Run{Count: 7, Concurrency: 1}, Source: files, Target: target{put: put}})
	want := "a.png=image a.png|b.jpg=image b.jpg|c d.webp=image c d.webp|2/a.png=image a.png|2/b.jpg=image b.jpg|2/c d.webp=image c d.webp|3/a.png=image a.png"
	if text := strings.Join(got, "|"); err != nil || text != want {
		t.Errorf("%v, uploads %s", err, text)
	}
	if u := logged["upload"][0]; u.Bytes != 11 || u.Class != "file" {
		t.Errorf("record %+v", u)
	}

	if err := os.Remove(filepath.Join(dir, "b.jpg")); err != nil {
		t.Fatal(err)
	}
	logged, err = drive(t, t.Context(), Options{Run: runlog.Run{Count: 3, Concurrency: 1}, Source: files, Target: target{put: put}})
	if u := logged["upload"][1]; err != nil || u.OK || u.Name != "b.jpg" || !strings.Contains(u.Error, "no such file") || !logged["upload"][2].OK {
		t.Errorf("%v, a file that is gone: %+v", err, u)
	}
}

// Folders in the folder count too, and links to files; no file gets the name of another one in a later round.
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
	empty := t.TempDir()
	bad := t.TempDir()
	control := t.TempDir()
	for _, path := range []string{filepath.Join(bad, "a.png"), filepath.Join(control, "a\tb.png")} {
		text := map[bool]string{true: "x"}[strings.Contains(path, "\t")]
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	large := t.TempDir()
	if err := os.WriteFile(filepath.Join(large, "a.png"), make([]byte, 101), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{
		"too large": large,
		"missing":   filepath.Join(empty, "none"), "no files": empty, "empty file": bad, "control character": control,
	} {
		if _, err := OpenFiles(dir, 100); image.KindOf(err) != image.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
