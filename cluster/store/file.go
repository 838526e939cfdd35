package store

import (
	"errors"
	"io"
	"io/fs"

	"imgcluster/cluster/image"
)

// File is a committed file, open for reading. Reads may run at the same time. It stays readable when
// the file is removed or replaced meanwhile.
type File struct {
	r    readFile
	size int64
}

// readFile is what a fileSystem opens.
type readFile interface {
	io.ReaderAt
	io.Closer
}

// Open opens the copy of an upload that was stored in epoch. When there is none the error is of
// KindNotFound. The caller closes the File.
func (s *Store) Open(id image.ID, epoch uint32) (*File, error) {
	k := key{id, epoch}
	r, size, err := s.fs.open(k.path(), s.failures.Load() > 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, image.Errorf(image.KindNotFound, "this node has no file %v", k).
			WithHint("read another copy")
	case err != nil:
		return nil, s.fault(opRead, k.String(), err)
	}
	return &File{r: r, size: size}, nil
}

// ReadAt implements io.ReaderAt. What it returns is not authenticated yet.
func (f *File) ReadAt(p []byte, off int64) (int, error) { return f.r.ReadAt(p, off) }

// Size returns the file's length in bytes when it was opened.
func (f *File) Size() int64 { return f.size }

// Close closes the file.
func (f *File) Close() error { return f.r.Close() }
