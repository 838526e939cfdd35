// Package durable writes files whole or not at all, and makes folders, and the names in them, outlast a
// power cut.
package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// MakeDir makes dir and its missing parents, mode 0700, durable: an entry is only as durable as the
// directory it is in.
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

// SyncDir makes the names in dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
