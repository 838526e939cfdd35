package modes

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// logFile is the run's log. What it held before stays until the run starts.
type logFile struct {
	*os.File
	path  string // without links
	fresh bool   // was not there before
	keep  int64  // what a run that goes on leaves of it, in bytes
}

// openLog finds out that the log can be written.
func openLog(path string) (*logFile, error) {
	const hint = "name a file that can be written with --log"
	if path == stdin {
		return nil, usagef(hint+"; --json prints the records too", "--log -: the log is not printed")
	}
	_, statErr := os.Stat(path)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, usagef(hint, "the log %s: %w", path, noPath(err))
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, usagef(hint, "the log %s is not a file", path)
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		f.Close()
		return nil, usagef(hint, "the log: %w", err)
	}
	return &logFile{File: f, path: path, fresh: errors.Is(statErr, fs.ErrNotExist)}, nil
}

// start empties the log, or cuts off the line in which an interrupted run ended.
func (l *logFile) start() error {
	err := l.Truncate(l.keep)
	if err == nil {
		_, err = l.Seek(l.keep, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("the log: %w", err)
	}
	return nil
}

// discard leaves the file as it was found.
func (l *logFile) discard() error {
	if l.fresh {
		os.Remove(l.path) // an empty file is all that stays
	}
	return l.Close()
}
