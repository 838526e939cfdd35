package witness

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// ChangedError is a file that is not what this node wrote.
type ChangedError struct {
	Root string // the data directory
	Name string // of the file, in Root
	How  string // such as "was changed"
}

// Error implements error.
func (e *ChangedError) Error() string {
	return fmt.Sprintf("%s in %s %s since this node wrote it", e.Name, e.Root, e.How)
}

// LostError is a whole half of a data directory that is not there: Raft's log, or the catalog.
type LostError struct {
	Root string // the data directory
	What string // such as "the Raft log"
}

// Error implements error.
func (e *LostError) Error() string {
	return fmt.Sprintf("%s in %s is lost, but the rest of the node's data is there", e.What, e.Root)
}

// grows reports whether a file is one that is only appended to, under a name that no other file has before
// it is removed.
func grows(name string) bool {
	base := filepath.Base(name)
	return strings.HasSuffix(base, ".log") || strings.HasSuffix(base, ".sst") ||
		strings.HasPrefix(base, "MANIFEST-")
}

// nameOf returns a file's name in the witness, empty when it has no mark there.
func (w *Witness) nameOf(path string) string {
	if !grows(path) {
		return ""
	}
	name, err := filepath.Rel(w.root, path)
	if err != nil || len(name) > nameBytesMax {
		return ""
	}
	return filepath.ToSlash(name)
}

// checkFile returns what is wrong with a file. One that is missing is wrong only when the witness is
// sealed: that it was removed is not always written down.
func (m mark) checkFile(root, name string, sealed bool) error {
	f, err := os.Open(filepath.Join(root, name))
	switch {
	case errors.Is(err, fs.ErrNotExist) && sealed:
		return &ChangedError{root, name, "was removed"}
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	defer f.Close()
	now, err := markOfReader(io.LimitReader(f, int64(m[0])))
	if err != nil {
		return err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case now[0] < m[0]:
		return &ChangedError{root, name, fmt.Sprintf("was cut to %d bytes of %d", now[0], m[0])}
	case now != m || sealed && uint64(info.Size()) != m[0]:
		return &ChangedError{root, name, "was changed"}
	}
	return nil
}

// markOfReader returns the mark of a file with this content.
func markOfReader(r io.Reader) (mark, error) {
	sum := xxhash.New()
	n, err := io.Copy(sum, r)
	return mark{uint64(n), sum.Sum64()}, err
}

func markOfFile(path string) (mark, error) {
	f, err := os.Open(path)
	if err != nil {
		return mark{}, err
	}
	defer f.Close()
	return markOfReader(f)
}

// checkFolders returns which of the folders is lost as a whole.
func checkFolders(root string) error {
	for folder, what := range map[string]string{raftFolder: "the Raft log", catalogFolder: "the catalog"} {
		if _, err := os.Stat(filepath.Join(root, folder)); errors.Is(err, fs.ErrNotExist) {
			return &LostError{root, what}
		}
	}
	return nil
}

// checkNoOthers returns an error when there is a file that a sealed witness does not know.
func checkNoOthers(root string, known map[string]mark) error {
	return walk(root, func(name string) error {
		if _, ok := known[name]; !ok && len(name) <= nameBytesMax {
			return &ChangedError{root, name, "was added"}
		}
		return nil
	})
}

// walk calls fn with the name of each file that a sealed witness knows.
func walk(root string, fn func(name string) error) error {
	for _, folder := range []string{raftFolder, catalogFolder} {
		top := filepath.Join(root, folder)
		err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() || e.Name() == "LOCK" {
				return err
			}
			name, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			return fn(filepath.ToSlash(name))
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
