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
	"imgcluster/modes/result"
)

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.jpg", "a.png", "c d.webp"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("image "+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	files, err := OpenFiles(dir)
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
	logged, err := drive(t, t.Context(), Options{Run: result.Run{Count: 7, Concurrency: 1}, Source: files, Target: target{put: put}})
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
	logged, err = drive(t, t.Context(), Options{Run: result.Run{Count: 3, Concurrency: 1}, Source: files, Target: target{put: put}})
	if u := logged["upload"][1]; err != nil || u.OK || u.Name != "b.jpg" || !strings.Contains(u.Error, "no such file") || !logged["upload"][2].OK {
		t.Errorf("%v, a file that is gone: %+v", err, u)
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
	for name, dir := range map[string]string{
		"missing": filepath.Join(empty, "none"), "no files": empty, "empty file": bad, "control character": control,
	} {
		if _, err := OpenFiles(dir); image.KindOf(err) != image.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
