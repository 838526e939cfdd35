package store

import (
	"errors"
	"io"
	"io/fs"

	"imgcluster/cluster/image"
)

// File is a committed file, open for reading. Reads may run at the same time. It stays readable when
// the file is removed or replaced meanwhile. What is read is not authenticated yet.
type File struct {
	readFile
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
	return &File{r, size}, nil
}

// Size returns the file's length in bytes when it was opened.
func (f *File) Size() int64 { return f.size }
