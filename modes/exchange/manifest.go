package exchange

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"imgcluster/cluster/image"
)

const (
	schema        = 1
	lineBytesMax  = 64 << 10 // of a manifest: names have up to 1,024 bytes, and up to six each as JSON
	headerBytes   = 4 << 10
	whatIsThis    = "take another folder, one that is empty or not there"
	withoutChecks = "export again into the folder, or move " + manifestName + " away to import unchecked"
)

// Header is the first line of a manifest, under the key "export".
type Header struct {
	Schema  int       `json:"schema"`
	Cluster string    `json:"cluster"` // its name
	User    string    `json:"user"`
	Started time.Time `json:"started"`
}

// ending is the last line of the manifest of a complete export, under the key "end".
type ending struct {
	Images int       `json:"images"`
	Bytes  int64     `json:"bytes"`
	Ended  time.Time `json:"ended"`
}

// entry is one image of an export: any other line of its manifest. The last line of a name counts.
type entry struct {
	User    string       `json:"user"`
	Name    string       `json:"name"`
	Version uint64       `json:"version"`
	Bytes   int64        `json:"bytes"`
	SHA256  image.Digest `json:"sha256"` // of the file
	Type    string       `json:"type"`   // Content-Type
	Created time.Time    `json:"created"`
	File    string       `json:"file,omitempty"` // where the name is not the path
	Gone    bool         `json:"gone,omitempty"` // the cluster has no such image any more
}

// file returns the path in the folder.
func (e *entry) file() string {
	if e.File != "" {
		return e.File
	}
	return e.Name
}

// line is any line of a manifest.
type line struct {
	Export *Header `json:"export,omitempty"`
	End    *ending `json:"end,omitempty"`
	entry
}

// manifest is what a manifest says.
type manifest struct {
	Header
	images   map[string]*entry // by name
	complete bool
	bad      int // the first line that cannot be read, from 1; 0: none. A last line that was cut is none.
}

// ErrNoExport is the error of a folder that has no manifest.
var ErrNoExport = errors.New("it is no export")

// readManifest reads the manifest of a folder.
func readManifest(root *os.Root) (*manifest, error) {
	f, err := root.Open(manifestName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoExport
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	scan := bufio.NewScanner(f)
	scan.Buffer(nil, lineBytesMax)
	m := &manifest{images: map[string]*entry{}}
	if !scan.Scan() || !parseHeader(scan.Bytes(), &m.Header) {
		return nil, errors.Join(badHeader(f.Name()), scan.Err())
	}
	last := 0 // the last line that cannot be read
	n := 1
	for ; scan.Scan(); n++ {
		if last == n && m.bad == 0 {
			m.bad = last
		}
		var l line
		switch err := json.Unmarshal(scan.Bytes(), &l); {
		case err != nil, l.End == nil && image.CheckName(l.Name) != nil:
			last = n + 1
		case l.End != nil:
			m.complete = true
		default:
			m.images[l.Name] = &l.entry
		}
	}
	if scan.Err() != nil && m.bad == 0 {
		m.bad = n + 1
	}
	m.complete = m.complete && m.bad == 0
	return m, nil
}

func parseHeader(text []byte, h *Header) bool {
	var l line
	if json.Unmarshal(text, &l) != nil || l.Export == nil || l.Export.Schema != schema {
		return false
	}
	*h = *l.Export
	return true
}

func badHeader(path string) error {
	return refusef("export into another folder, or use the imgcluster that has made this one",
		"the first line of %s is not that of an export which this version knows", path)
}

// ReadHeader returns whose export a folder is. The error of a folder that is none is ErrNoExport.
func ReadHeader(dir string) (h Header, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return h, err
	}
	defer root.Close()
	f, err := root.Open(manifestName)
	if errors.Is(err, fs.ErrNotExist) {
		return h, ErrNoExport
	}
	if err != nil {
		return h, err
	}
	defer f.Close()
	text, err := bufio.NewReader(io.LimitReader(f, headerBytes)).ReadBytes('\n')
	if err != nil || !parseHeader(text, &h) {
		return h, badHeader(f.Name())
	}
	return h, nil
}

// write writes a manifest with all its images by name, and its end where the export is complete.
func (m *manifest) write(w io.Writer) error {
	err := encode(w, struct {
		Export Header `json:"export"`
	}{m.Header})
	var end ending
	for _, name := range slices.Sorted(maps.Keys(m.images)) {
		e := m.images[name]
		if !e.Gone {
			end.Images++
			end.Bytes += e.Bytes
		}
		if err == nil {
			err = encode(w, e)
		}
	}
	if err == nil && m.complete {
		end.Ended = time.Now()
		err = encode(w, struct {
			End ending `json:"end"`
		}{end})
	}
	return err
}

// encode writes a line of a manifest.
func encode(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// writeSums writes what sha256sum -c reads.
func (m *manifest) writeSums(w io.Writer) error {
	for _, name := range slices.Sorted(maps.Keys(m.images)) {
		e := m.images[name]
		if e.Gone {
			continue
		}
		mark, file := "", e.file()
		if strings.Contains(file, `\`) {
			mark, file = `\`, strings.ReplaceAll(file, `\`, `\\`)
		}
		if _, err := fmt.Fprintf(w, "%s%s  %s\n", mark, e.SHA256, file); err != nil {
			return err
		}
	}
	return nil
}

// advised is an error with the next step.
type advised struct {
	error
	hint string
}

func (a *advised) Unwrap() error { return a.error }

// Hint returns the next step.
func (a *advised) Hint() string { return a.hint }

// refused is the error of a folder or file that is left as it is.
type refused struct{ advised }

// ExitStatus returns that of a usage error.
func (r *refused) ExitStatus() int { return 2 }

func refusef(hint, format string, args ...any) error {
	return &refused{advised{fmt.Errorf(format, args...), hint}}
}
