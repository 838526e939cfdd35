package oserr

import (
	"errors"
	"io/fs"
	"os"
)

// NoPath returns err without the path of the file, for words that name that already.
func NoPath(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}
