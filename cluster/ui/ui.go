// Package ui is the dashboard: pages without secrets, which ask the API of the node that they come from for
// what they show, with the session of whoever looks at them. All that they need is in the program; nothing is
// built, and no other host is asked for anything.
package ui

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"slices"
	"strings"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

//go:embed assets
var assets embed.FS

// page is one page of the dashboard.
type page struct {
	Path  string // under wire.UIPath; empty: the first
	Title string
	File  string // its script and its style, without the ending
}

var pages = []page{
	{"", "Overview", "overview"},
	{"images", "Images", "images"},
	{"users", "Users and keys", "users"},
	{"nodes", "Nodes", "nodes"},
	{"runs", "Runs", "runs"},
}

// policy allows what the pages need: their own files, pictures that were uploaded or made of a file that is
// about to be, and the reports of runs in a frame.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; " +
	"connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"

// file is what is served at one path.
type file struct {
	text []byte
	kind string
	tag  string
}

// Handler serves the dashboard under wire.UIPath.
type Handler struct{ files map[string]file }

// kinds are the media types of the assets. Those of the system may be others.
var kinds = map[string]string{
	".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
	".txt": "text/plain; charset=utf-8",
}

// New returns the handler of the dashboard. It panics where the program was built with a broken page.
func New() *Handler {
	h := &Handler{files: map[string]file{}}
	layout := template.Must(template.ParseFS(assets, "assets/page.html"))
	for _, p := range pages {
		var b bytes.Buffer
		err := layout.Execute(&b, map[string]any{"Page": p, "Pages": pages, "Root": wire.UIPath})
		if err != nil {
			panic(err)
		}
		h.add(p.Path, b.Bytes(), "text/html; charset=utf-8")
	}
	names, err := fs.ReadDir(assets, "assets")
	if err != nil {
		panic(err)
	}
	for _, entry := range names {
		kind, ok := kinds[path.Ext(entry.Name())]
		if !ok {
			continue
		}
		text, err := fs.ReadFile(assets, "assets/"+entry.Name())
		if err != nil {
			panic(err)
		}
		h.add(entry.Name(), text, kind)
	}
	return h
}

func (h *Handler) add(name string, text []byte, kind string) {
	sum := sha256.Sum256(text)
	h.files[name] = file{text, kind, `"` + hex.EncodeToString(sum[:8]) + `"`}
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, ok := h.files[strings.TrimPrefix(r.URL.Path, wire.UIPath)]
	if !ok {
		p, text := wire.Problem(w.Header(), image.Errorf(image.KindNotFound,
			"the dashboard has no page %.80q", r.URL.Path).WithHint("begin at "+wire.UIPath))
		w.WriteHeader(p.Status)
		w.Write(text)
		return
	}
	header := w.Header()
	header.Set("Content-Security-Policy", policy)
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Content-Type", f.kind)
	header.Set("Cache-Control", "no-cache")
	header.Set("ETag", f.tag)
	if slices.Contains(r.Header["If-None-Match"], f.tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Write(f.text)
}
