package durable

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// fileMode is that of a new file, less the umask.
const fileMode = 0o666

// linksMax bounds a chain of symbolic links, as the kernel does.
const linksMax = 40

// NotFileError says that a path names something that cannot be replaced by a file.
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

// File is a file that appears whole at Commit, or not at all. Until then its bytes are in a temporary
// file beside it. End it with Commit or Discard.
type File struct {
	*os.File
	path string
	old  fs.FileInfo // what it replaces; nil: nothing
}

// Create begins the file at path. One that is there is replaced at Commit, and keeps its mode and, as
// far as this user may, its owner; behind a symbolic link, the file that it leads to. A new file has
// the mode that the umask leaves. A folder, pipe, socket or device is refused with a NotFileError.
func Create(path string) (*File, error) {
	old, err := os.Stat(path)
	mode := fs.FileMode(fileMode)
	switch {
	case err == nil && !old.Mode().IsRegular():
		return nil, &NotFileError{old.Mode()}
	case err == nil:
		mode = old.Mode().Perm() // never open to more than the old one was
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

// target follows the symbolic links at the end of a path, also to a file that is not there yet.
func target(path string) (string, error) {
	for range linksMax {
		next, err := os.Readlink(path)
		if err != nil {
			return path, nil // no link, or nothing
		}
		if !filepath.IsAbs(next) {
			dir, _ := filepath.Split(path)
			next = dir + next // not cleaned: a folder before ".." may be a link
		}
		path = next
	}
	return "", syscall.ELOOP
}

// temporary makes a file beside the one at path. Its name is short, whatever that one is called.
func temporary(path string, mode fs.FileMode) (*os.File, error) {
	dir, _ := filepath.Split(path)
	return os.OpenFile(dir+".imgcluster-"+rand.Text()+".tmp", os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
}

// Commit gives the file its name. It does not wait for the disk: call Sync before where that matters.
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

// Discard leaves everything as it was.
func (f *File) Discard() {
	f.Close()
	os.Remove(f.Name())
}

// Resemble gives f the mode of another file and, as far as this user may, its owner and its group.
func Resemble(f *os.File, other fs.FileInfo) error {
	if st, ok := other.Sys().(*syscall.Stat_t); ok {
		if f.Chown(int(st.Uid), int(st.Gid)) != nil {
			f.Chown(-1, int(st.Gid)) // a group that this user is in
		}
	}
	return f.Chmod(other.Mode().Perm())
}

// WriteNew writes a file of this mode, durable when it returns nil. It fails with fs.ErrExist, and
// changes nothing, when the name is taken.
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
		err = os.Link(f.Name(), path) // unlike a rename, it takes no name away
	}
	if err = errors.Join(err, os.Remove(f.Name())); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}
