package genimg

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgcluster/cluster/durable"
)

var tiny = Spec{Seed: 1, MinPixels: 100, MaxPixels: 200}

// names lists a folder, hidden files too.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestGenerate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "set")
	const count = 30
	calls, lastBytes := 0, int64(0)
	err := Generate(t.Context(), tiny, count, dir, 4, func(done int, bytes int64) {
		calls++
		if done != calls || bytes <= lastBytes {
			t.Errorf("call %d of progress says %d images, %d bytes", calls, done, bytes)
		}
		lastBytes = bytes
	})
	if err != nil {
		t.Fatal(err)
	}
	if calls != count || lastBytes != tiny.Summary(count).Bytes || len(names(t, dir)) != count {
		t.Errorf("%d calls of progress, %d bytes, %d files", calls, lastBytes, len(names(t, dir)))
	}
	for n := 1; n <= count; n++ {
		im := tiny.Image(n)
		file := filepath.Join(dir, im.Name)
		got, err := os.ReadFile(file)
		if err != nil || !bytes.Equal(got, im.AppendTo(nil)) {
			t.Errorf("%s is not image %d: %v", file, n, err)
		}
		if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o644 {
			t.Errorf("%s has the wrong mode: %v, %v", file, st.Mode(), err)
		}
	}
}

func TestGenerateReplaces(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, tiny.Image(1).Name)
	if err := os.WriteFile(old, []byte("an older file"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Generate(t.Context(), tiny, 1, dir, 0, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(old); err != nil || !bytes.Equal(got, tiny.Image(1).AppendTo(nil)) {
		t.Errorf("the older file stayed: %v", err)
	}
	if got := replaced(dir, tiny, 3); got != tiny.Image(1).Size {
		t.Errorf("the files that are there count as %d bytes", got)
	}
}

func TestGenerateRefusals(t *testing.T) {
	for _, c := range []struct {
		name           string
		spec           Spec
		count, workers int
		want           error
	}{
		{"no image", tiny, 0, 1, ErrSpec},
		{"too many images", tiny, CountMax + 1, 1, ErrSpec},
		{"too many workers", tiny, 1, WorkersMax + 1, ErrSpec},
		{"negative workers", tiny, 1, -1, ErrSpec},
		{"bad pixels", Spec{MinPixels: 1, MaxPixels: 2}, 1, 1, ErrSpec},
		{"800 TB", Spec{MinPixels: 20000, MaxPixels: 20000}, CountMax, 1, ErrNoRoom},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "set")
			err := Generate(t.Context(), c.spec, c.count, dir, c.workers, nil)
			var e *Error
			if !errors.Is(err, c.want) || !errors.As(err, &e) || e.Hint() == "" || e.Detail == "" {
				t.Errorf("refused with %v", err)
			}
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the folder was made: %v", err)
			}
		})
	}
}

func TestGenerateStopsBetweenFiles(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := Generate(ctx, tiny, 1000, dir, 2, func(done int, _ int64) {
		if done == 5 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("stopped with %v", err)
	}
	checkWhole(t, dir, 5, 10)
}

// checkWhole wants lo to hi files, whole ones and nothing else.
func checkWhole(t *testing.T, dir string, lo, hi int) {
	t.Helper()
	all := names(t, dir)
	if len(all) < lo || len(all) > hi {
		t.Errorf("%d files, want %d to %d: %q", len(all), lo, hi, all)
	}
	whole := map[string]int64{}
	for n := 1; n <= 1000; n++ {
		whole[tiny.Image(n).Name] = tiny.Image(n).Size
	}
	for _, name := range all {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Size() != whole[name] {
			t.Errorf("%s is not a whole image: %v", name, err)
		}
	}
}

// countdown is a context that ends when it has been asked so many times: in the middle of a file.
type countdown struct {
	context.Context
	left int
}

func (c *countdown) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestCutFileIsRemoved(t *testing.T) {
	im := Spec{Seed: 1, MinPixels: 600, MaxPixels: 600}.Image(1)
	asksMax := 1 + (im.Pixels+bandRows(im.Pixels)-1)/bandRows(im.Pixels) // before the file, before each band
	dir := t.TempDir()
	for asks := range asksMax {
		err := writeFile(&countdown{t.Context(), asks}, dir, im)
		if !errors.Is(err, context.Canceled) || len(names(t, dir)) != 0 {
			t.Errorf("ended at ask %d: %v, left %q", asks, err, names(t, dir))
		}
	}
	if err := writeFile(&countdown{t.Context(), asksMax}, dir, im); err != nil || len(names(t, dir)) != 1 {
		t.Errorf("not written: %v, %q", err, names(t, dir))
	}
}

func TestGenerateReportsTheFileThatFails(t *testing.T) {
	dir := t.TempDir()
	// A folder stands where image 3 belongs.
	if err := os.MkdirAll(filepath.Join(dir, tiny.Image(3).Name, "in"), 0o755); err != nil {
		t.Fatal(err)
	}
	err := Generate(t.Context(), tiny, 5, dir, 1, nil)
	var folder *durable.NotFileError
	if !errors.As(err, &folder) || !strings.Contains(err.Error(), tiny.Image(3).Name+": it is a folder") {
		t.Errorf("failed with %v", err)
	}
	if got := names(t, dir); len(got) != 3 {
		t.Errorf("left %q", got)
	}
}

func TestGenerateIntoAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "under")} {
		if err := Generate(t.Context(), tiny, 1, dir, 1, nil); err == nil {
			t.Errorf("wrote a set into %s", dir)
		}
	}
}
