package ui

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

func get(h http.Handler, path string, header http.Header) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Header = header
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

var linked = regexp.MustCompile(`(?:src|href)="([^"#]+)|from '\./([^']+)'`)

// TestPages: whatever a page names is there, nothing of it is inline or on another host, and a page with all
// that it needs is small.
func TestPages(t *testing.T) {
	h := New()
	for _, p := range pages {
		seen := map[string]bool{}
		size := 0
		var load func(path string)
		load = func(path string) {
			if seen[path] {
				return
			}
			seen[path] = true
			w := get(h, path, http.Header{})
			if w.Code != http.StatusOK || w.Header().Get("Content-Type") == "" ||
				w.Header().Get("Content-Security-Policy") != policy {
				t.Fatalf("%s of %q: %d %v", path, p.Title, w.Code, w.Header())
			}
			text := w.Body.String()
			size += len(text)
			if strings.Contains(path, "uplot") {
				return
			}
			for _, bad := range []string{
				"http://", "https://", "onclick=", "style=", "<style", "innerHTML =", "eval(",
			} {
				if strings.Contains(strings.ReplaceAll(text, `xmlns="http://www.w3.org/2000/svg"`, ""), bad) {
					t.Errorf("%s has %q", path, bad)
				}
			}
			for _, m := range linked.FindAllStringSubmatch(text, -1) {
				if next := m[1]; next != "" && !isPage(next) {
					load(next)
				} else if m[2] != "" {
					load(wire.UIPath + m[2])
				}
			}
		}
		load(wire.UIPath + p.Path)
		t.Logf("%s: %d files, %d bytes", p.Title, len(seen), size)
		if size > 300_000 {
			t.Errorf("%s takes %d bytes", p.Title, size)
		}
	}
	nothing := get(h, wire.UIPath+"nothing.js", http.Header{}).Result()
	if err := wire.ReadProblem(nothing); nothing.StatusCode != http.StatusNotFound ||
		!errors.Is(err, image.Errorf(image.KindNotFound, "")) || err.Hint() == "" {
		t.Errorf("what is not there: %d, %v", nothing.StatusCode, err)
	}
	w := get(h, wire.UIPath, http.Header{})
	same := http.Header{"If-None-Match": {w.Header().Get("ETag")}}
	if w = get(h, wire.UIPath, same); w.Code != http.StatusNotModified {
		t.Errorf("the same again: %d", w.Code)
	}
}

func isPage(path string) bool {
	for _, p := range pages {
		if path == wire.UIPath+p.Path {
			return true
		}
	}
	return false
}
