package exchange

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"imgcluster/cluster/image"
	"imgcluster/cluster/oserr"
	"imgcluster/modes/term"
)

// readableHint is the next step where a path cannot be read.
const readableHint = "name folders or files that can be read"

// sniffBytes of a file say whether it is an image (http.DetectContentType).
const sniffBytes = 512

// imported is a file to import.
type imported struct {
	source *source
	file   string // in the source
	name   string // of its image
	bytes  int64
	listed *entry // in the manifest of the source; nil: it has none
}

func (f *imported) path() string { return filepath.Join(f.source.root.Name(), f.file) }

// source is a folder that is imported, or the folder of a file.
type source struct {
	root     *os.Root
	byFile   map[string]*entry // of an export; nil: it is none
	complete bool              // as far as the manifest says
}

// openSource opens a folder; its manifest is read when all of the folder is imported.
func (m *Import) openSource(dir string, all bool) (*source, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, refusef(readableHint, "%s cannot be opened: %w", dir, oserr.NoPath(err))
	}
	s := &source{root: root}
	m.sources = append(m.sources, s)
	if !all {
		return s, nil
	}
	man, err := readManifest(root)
	switch {
	case errors.Is(err, ErrNoExport):
		return s, nil
	case err != nil:
		return nil, err
	case man.bad > 0:
		return nil, refusef(withoutChecks,
			"line %d of %s cannot be read", man.bad, filepath.Join(dir, manifestName))
	}
	s.complete = man.complete
	s.byFile = map[string]*entry{}
	for _, e := range man.images {
		s.byFile[e.file()] = e
	}
	return s, nil
}

// scan finds the files to import, and reports those that are not to be or cannot be.
func (m *Import) scan() (files []*imported, err error) {
	for _, at := range m.Paths {
		info, err := os.Stat(at)
		var more []*imported
		switch {
		case err != nil:
			err = refusef(readableHint, "%s: %w", at, oserr.NoPath(err))
		case info.IsDir():
			more, err = m.scanFolder(at)
		case info.Mode().IsRegular():
			more, err = m.scanFile(at)
		default:
			err = refusef("store what a pipe gives with: imgcluster put --name NAME",
				"%s is no file and no folder", at)
		}
		if err != nil {
			return nil, err
		}
		files = append(files, more...)
	}
	return files, distinct(files)
}

// distinct refuses two files that would become one image.
func distinct(files []*imported) error {
	seen := map[string]*imported{}
	for _, f := range files {
		if first := seen[f.name]; first != nil {
			return refusef("import them one after the other, with another --prefix each",
				"%s and %s would both be stored as %q", first.path(), f.path(), f.name)
		}
		seen[f.name] = f
	}
	return nil
}

// scanFile is scan of one file. One that is no image is refused.
func (m *Import) scanFile(at string) ([]*imported, error) {
	real, err := filepath.EvalSymlinks(at)
	if err != nil {
		return nil, err
	}
	s, err := m.openSource(filepath.Dir(real), false)
	if err != nil {
		return nil, err
	}
	f := &imported{source: s, file: filepath.Base(real), name: m.Prefix + filepath.Base(at)}
	if !m.AnyFile && !f.isImage() {
		return nil, refusef("--any-file stores files of all kinds", "%s %s", at, noImage)
	}
	return m.check(nil, f), nil
}

// scanFolder is scan of a folder. It follows no link.
func (m *Import) scanFolder(at string) (files []*imported, err error) {
	s, err := m.openSource(at, true)
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	err = fs.WalkDir(s.root.FS(), ".", func(file string, d fs.DirEntry, err error) error {
		f := &imported{source: s, file: file, name: m.Prefix + file}
		switch {
		case err != nil && file == ".":
			return err
		case err != nil:
			m.fail(f, oserr.NoPath(err), "let this user read it")
			return nil
		case file == ".":
			return nil
		case d.IsDir():
			if isHidden(file) && s.byFile == nil {
				return fs.SkipDir
			}
			return nil
		}
		if f.listed = s.byFile[file]; f.listed != nil {
			found[file] = true
			f.name = m.Prefix + f.listed.Name
		}
		if why := m.skips(f, d); why != "" {
			m.tell(Event{Type: Skipped, File: f.path(), Problem: why})
		} else if f.listed != nil || !isHidden(file) && !isOwn(file) {
			files = m.check(files, f)
		}
		return nil
	})
	if err != nil {
		return nil, refusef(readableHint, "%s: %w", at, oserr.NoPath(err))
	}
	for _, file := range slices.Sorted(maps.Keys(s.byFile)) {
		if e := s.byFile[file]; !found[file] && !e.Gone {
			m.fail(&imported{source: s, file: file, name: m.Prefix + e.Name},
				errors.New("it is in the manifest, and not in the folder"), "export again into the folder")
		}
	}
	return files, nil
}

// skips returns why a file is not to be imported; empty: it is, or need not be named.
func (m *Import) skips(f *imported, d fs.DirEntry) string {
	switch {
	case f.listed != nil && f.listed.Gone:
		return "its image was not in the cluster any more when it was last exported"
	case f.listed == nil && (isHidden(f.file) || isOwn(f.file)):
		return ""
	case d.Type()&fs.ModeSymlink != 0:
		return "it is a symbolic link"
	case !d.Type().IsRegular():
		return "it is no regular file"
	case f.listed == nil && !m.AnyFile && !f.isImage():
		return "it " + noImage
	}
	return ""
}

const noImage = "is no image, by its name and its first bytes"

// isImage reports whether a file is an image by its name, or else by its first bytes.
func (f *imported) isImage() bool {
	if hasImageType(f.file) {
		return true
	}
	file, err := f.open()
	if err != nil {
		return false
	}
	defer file.Close()
	first, err := io.ReadAll(io.LimitReader(file, sniffBytes))
	return err == nil && strings.HasPrefix(http.DetectContentType(first), "image/")
}

// open opens the file, which is no link.
func (f *imported) open() (*os.File, error) {
	return f.source.root.OpenFile(f.file, readFlags, 0)
}

// check appends a file that can be stored, and reports one that cannot.
func (m *Import) check(files []*imported, f *imported) []*imported {
	info, err := f.source.root.Lstat(f.file)
	switch {
	case err != nil:
		m.fail(f, oserr.NoPath(err), "let this user read it")
	case image.CheckName(f.name) != nil:
		m.tell(Event{Type: Failed, File: f.path(), Err: image.CheckName(f.name)})
	case info.Size() == 0:
		m.fail(f, errors.New("it is empty"), "give an image that has something in it")
	case info.Size() > m.BytesMax:
		m.fail(f, fmt.Errorf("it is larger than limits.image_bytes, %s", term.Bytes(m.BytesMax)),
			"raise limits.image_bytes on every node and here")
	default:
		f.bytes = info.Size()
		return append(files, f)
	}
	return files
}

// fail reports a file that cannot be imported.
func (m *Import) fail(f *imported, err error, hint string) {
	m.tell(Event{Type: Failed, Name: f.name, File: f.path(), Err: &advised{err, hint}})
}

// Exports returns the folders in a folder that are exports: an export of all users has one of each.
func Exports(dir string) (map[string]Header, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	exports := map[string]Header{}
	for _, e := range entries {
		at := filepath.Join(dir, e.Name())
		if !e.IsDir() {
			continue
		}
		if h, err := ReadHeader(at); err == nil {
			exports[at] = h
		}
	}
	return exports, nil
}

// typeOf is the Content-Type that an image has by its name.
func typeOf(name string) string { return (&image.Record{Name: path.Base(name)}).MediaType() }
