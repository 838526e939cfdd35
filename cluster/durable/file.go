package durable

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// fileMode is the mode of a new file, before the umask.
const fileMode = 0o666

// linksMax is the longest chain of symbolic links that is followed, as in the kernel (path_resolution(7)).
const linksMax = 40

// NotFileError is the error for a path that names something other than a regular file.
type NotFileError struct{ Mode fs.FileMode }

func (e *NotFileError) Error() string {
	switch {
	case e.Mode.IsDir():
		return "it is a folder"
	case e.Mode&fs.ModeNamedPipe != 0:
		return "it is not a file but a pipe"
	case e.Mode&fs.ModeSocket != 0:
		return "it is not a file but a socket"
	}
	return "it is not a file but a device"
}

// File is a file that appears whole at Commit, or not at all. Until then its bytes are in a temporary file
// in the same directory. It must end in Commit or Discard.
type File struct {
	*os.File
	path string
	old  fs.FileInfo // of the file that it replaces; nil when there is none
}

// Create begins to write the file at path. At Commit it replaces an existing file, whose mode it gets and,
// as far as this user may set it, whose owner. Of a symbolic link the target is replaced. A new file has
// mode 0666 before the umask. The error for a folder, pipe, socket or device is a *NotFileError.
func Create(path string) (*File, error) {
	old, err := os.Stat(path)
	mode := fs.FileMode(fileMode)
	switch {
	case err == nil && !old.Mode().IsRegular():
		return nil, &NotFileError{old.Mode()}
	case err == nil:
		mode = old.Mode().Perm() // at no moment may more users read it than the old one
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	default:
		old = nil
	}
	if path, err = target(path); err != nil {
		return nil, err
	}
	f, err := temporary(path, mode)
	if err != nil {
		return nil, err
	}
	return &File{f, path, old}, nil
}

// target follows the symbolic links at the end of a path, also to a file that does not exist yet.
func target(path string) (string, error) {
	for range linksMax {
		next, err := os.Readlink(path)
		if err != nil {
			return path, nil // not a link, or nothing there
		}
		if !filepath.IsAbs(next) {
			dir, _ := filepath.Split(path)
			next = dir + next // not cleaned: a folder before ".." may be a link
		}
		path = next
	}
	return "", syscall.ELOOP
}

// temporary makes a file in the directory of path. Its name does not grow with that of path.
func temporary(path string, mode fs.FileMode) (*os.File, error) {
	dir, _ := filepath.Split(path)
	return os.OpenFile(dir+".imgcluster-"+rand.Text()+".tmp", os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
}

// Commit closes the file and renames it to its path. It does not fsync: call Sync before where the file must
// survive a power cut.
func (f *File) Commit() error {
	var err error
	if f.old != nil {
		err = Resemble(f.File, f.old)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), f.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// Discard closes and removes the temporary file.
func (f *File) Discard() {
	f.Close()
	os.Remove(f.Name())
}

// WriteNew writes a file with this mode, which is durable when WriteNew returns nil. When the path exists it
// changes nothing and returns fs.ErrExist.
func WriteNew(path string, data []byte, mode fs.FileMode) error {
	f, err := temporary(path, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Link(f.Name(), path) // unlike a rename, it does not replace a file
	}
	if err = errors.Join(err, os.Remove(f.Name())); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}
