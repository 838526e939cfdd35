//go:build !linux

package local

import (
	"os"
	"path/filepath"
)

// socketPathMax is the longest path of a socket on macOS (sun_path in unix(4)); Windows has a few bytes more.
const socketPathMax = 103

// shortPath returns a path that is short enough for a socket. The caller calls done after the last use of it.
func shortPath(path string) (short string, done func(), err error) {
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return "", nil, err
	}
	if len(path) <= socketPathMax {
		return path, func() {}, nil
	}
	return linkedPath(path)
}
