// Package durable replaces files atomically, and makes folders and the names in them survive a power cut. It
// is for small files and for the output of commands; images are written by package store.
package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// MakeDir makes dir and its missing parents, with mode 0700, and fsyncs the directory of each: a new name is
// durable only when its directory is.
func MakeDir(dir string) error {
	var missing []string
	at := filepath.Clean(dir)
	for {
		_, err := os.Stat(at)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		missing = append(missing, at)
		at = filepath.Dir(at)
	}
	for _, name := range slices.Backward(missing) {
		if err := os.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := SyncDir(filepath.Dir(name)); err != nil {
			return err
		}
	}
	return nil
}
