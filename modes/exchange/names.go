package exchange

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"strings"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"imgcluster/cluster/image"
)

const (
	// ownPrefix begins the names that an export keeps for itself in its folder.
	ownPrefix    = "imgcluster-export"
	manifestName = ownPrefix + ".jsonl"
	sumsName     = ownPrefix + ".sha256"     // for sha256sum -c
	otherDir     = ownPrefix + "-names"      // has the images whose names cannot be paths
	tempPrefix   = ".imgcluster-export-temp" // of files that are not complete
	partBytesMax = 255                       // of a path, on all common file systems
	extBytesMax  = 16                        // of an extension that is kept in otherDir
)

// layout gives each image of an export its file, so that no two have the same. An image's name is its path,
// unless it cannot be one: beside "a/b" there is no file "a", and where capitals make no difference no "A"
// beside "a". Then its file is in otherDir, under a hash of the name.
type layout struct {
	folds   bool // capitals make no difference
	files   map[string]bool
	folders map[string]bool
}

func newLayout(folds bool) *layout {
	return &layout{folds: folds, files: map[string]bool{}, folders: map[string]bool{}}
}

// key is the same for the paths that are the same to the file system.
func (l *layout) key(file string) string {
	if !l.folds {
		return file
	}
	parts := strings.Split(norm.NFC.String(cases.Fold().String(file)), "/")
	for i, p := range parts {
		parts[i] = strings.TrimRight(p, ". ") // as FAT does
	}
	return strings.Join(parts, "/")
}

// parents yields the folders that a path is in.
func parents(file string) []string {
	var all []string
	for i, c := range file {
		if c == '/' {
			all = append(all, file[:i])
		}
	}
	return all
}

// use takes a file.
func (l *layout) use(file string) {
	key := l.key(file)
	l.files[key] = true
	l.expect(key)
}

// expect takes the folders of a name that comes later.
func (l *layout) expect(name string) {
	for _, dir := range parents(l.key(name)) {
		l.folders[dir] = true
	}
}

// place takes the file of an image that has none yet, and returns it.
func (l *layout) place(name string) string {
	file := name
	if !l.fits(name) {
		file = otherFile(name)
	}
	l.use(file)
	return file
}

// fits reports whether a name can be the path of a file.
func (l *layout) fits(name string) bool {
	if isOwn(name) {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > partBytesMax || !IsPart(part) {
			return false
		}
	}
	key := l.key(name)
	for _, dir := range parents(key) {
		if l.files[dir] {
			return false
		}
	}
	return !l.files[key] && !l.folders[key]
}

// isOwn reports whether a path in the folder is one that an export keeps for itself.
func isOwn(file string) bool {
	first, _, _ := strings.Cut(strings.ToLower(file), "/")
	return strings.HasPrefix(first, ownPrefix) || strings.HasPrefix(first, tempPrefix)
}

// otherFile is the file of an image whose name cannot be a path.
func otherFile(name string) string {
	sum := sha256.Sum256([]byte(name))
	ext := path.Ext(name)
	for _, c := range ext {
		if c != '.' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			ext = ""
		}
	}
	if len(ext) > extBytesMax {
		ext = ""
	}
	return otherDir + "/" + hex.EncodeToString(sum[:16]) + ext
}

// isHidden reports whether a part of a path begins with a dot.
func isHidden(file string) bool {
	return strings.HasPrefix(file, ".") || strings.Contains(file, "/.")
}

// hasImageType reports whether the extension of a name is that of an image.
func hasImageType(name string) bool {
	return (&image.Record{Name: name}).MediaType() != image.DefaultMediaType
}
