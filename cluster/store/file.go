package store

import (
	"errors"
	"io"
	"io/fs"

	"imgcluster/cluster/image"
)

// File is a committed file, open for reading. Reads may run at the same time. It stays readable when
// the file is removed meanwhile. What is read is not authenticated yet.
type File struct {
	readFile
	size int64
}

// readFile is what a fileSystem opens.
type readFile interface {
	io.ReaderAt
	io.Closer
}

// Open opens a committed file. When there is none the error is of KindNotFound. The caller closes the File.
func (s *Store) Open(f image.FileID) (*File, error) {
	r, size, err := s.fs.open(PathOf(f), s.failures.Load() > 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, image.Errorf(image.KindNotFound, "this node has no file %v", f).
			WithHint("read another copy")
	case err != nil:
		return nil, s.fault(opRead, f.String(), err)
	}
	return &File{r, size}, nil
}

// Size returns the file's length in bytes when it was opened.
func (f *File) Size() int64 { return f.size }
