package runlog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"imgcluster/cluster/durable"
	"imgcluster/cluster/image"
	"imgcluster/cluster/oserr"
)

// File is the run's log, which no other run writes as long as this one has it open: the lock ends with the
// process. Its content stays as it is until Start.
type File struct {
	*os.File
	path  string // without links
	fresh bool   // did not exist before
	keep  int64  // how many bytes of it a resumed run keeps
	older string // what Older returns
}

// olderSuffix ends the name of the previous log.
const olderSuffix = ".1"

// OpenFile opens and locks the log, for a run that keeps its first bytes, as many as keep says. It refuses,
// with image.KindInvalid and a hint, a file that is not the log of a run or is in use.
func OpenFile(path string, keep int64) (*File, error) {
	const hint = "name a file that can be written with --log"
	if path == "-" {
		return nil, refusef(hint+"; --json prints the records too", "--log -: the log is not printed")
	}
	_, statErr := os.Stat(path)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil, refusef(hint, "the log %s: %w", path, oserr.NoPath(err))
	}
	l := &File{File: f, keep: keep}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, refusef(hint, "the log %s is not a file", path)
	}
	if l.path, err = filepath.EvalSymlinks(path); err == nil {
		err = l.lock()
	}
	if err == nil && keep == 0 {
		err = l.checkOld()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	l.fresh = errors.Is(statErr, fs.ErrNotExist)
	return l, nil
}

// lock keeps other runs from writing the log. On a file system without locks it does nothing.
func (l *File) lock() error {
	hint := "wait until it has ended, or name another file with --log"
	if l.keep > 0 {
		hint = "wait until it has ended"
	}
	if isLocked(l.File) {
		return refusef(hint, "another stress is writing the log %s", l.path)
	}
	own, err := l.Stat()
	if err != nil {
		return err
	}
	// Between opening and locking, a run that ended or started may have renamed or removed the file.
	if now, err := os.Stat(l.path); err != nil || !os.SameFile(own, now) {
		return refusef(hint, "another stress is using the log %s", l.path)
	}
	return nil
}

// checkOld refuses to replace a file that is not a log, and sets the name under which a log is kept.
func (l *File) checkOld() error {
	const hint = "name another file with --log, or move that one away"
	if info, err := l.Stat(); err != nil || info.Size() == 0 {
		return err
	}
	if !isLog(l.File) {
		return refusef(hint, "%s is there, and is not the log of a run", l.path)
	}
	l.older = l.path + olderSuffix
	f, err := os.Open(l.older)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return refusef(hint, "%s, which the previous log would replace: %w", l.older, oserr.NoPath(err))
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > 0 && !isLog(f) {
		return refusef(hint, "%s is there, and is not the log of a run: the previous log would replace it", l.older)
	}
	return nil
}

// isLog reports whether a file begins like the log of a run, also one of a newer version.
func isLog(f *os.File) bool {
	line, err := bufio.NewReader(io.NewSectionReader(f, 0, 1<<20)).ReadBytes('\n')
	if err != nil {
		return false
	}
	log, err := Read(bytes.NewReader(line))
	return errors.Is(err, ErrNewerSchema) || err == nil && log.Run.Schema > 0
}

// Older returns the name under which Start keeps the previous log; empty when there is none, or when this run
// resumes it.
func (l *File) Older() string { return l.older }

// Start empties the log, or cuts off the line in which an interrupted run ended. It keeps a previous log
// under another name, which it returns.
func (l *File) Start() (older string, err error) {
	if l.older != "" {
		return l.older, l.replace()
	}
	err = l.Truncate(l.keep)
	if err == nil {
		_, err = l.Seek(l.keep, io.SeekStart)
	}
	if err != nil {
		return "", fmt.Errorf("the log: %w", err)
	}
	return "", nil
}

// replace renames the previous log, and continues with a new file.
func (l *File) replace() error {
	old, err := l.Stat()
	if err != nil {
		return fmt.Errorf("the log: %w", err)
	}
	if err := renameOpen(l.File, l.path, l.older); err != nil {
		return refusef("name another file with --log", "the previous log: %w", err)
	}
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_EXCL|os.O_RDWR, old.Mode().Perm())
	if err == nil {
		err = durable.Resemble(f, old)
	}
	if err != nil {
		return fmt.Errorf("the log: %w", err)
	}
	l.Close()
	l.File = f
	return l.lock()
}

// Discard leaves the file as it was found.
func (l *File) Discard() error {
	if l.fresh {
		return removeOpen(l.File, l.path)
	}
	return l.Close()
}

// OpenRegular opens a file for reading, and refuses a folder. Its error names no path.
func OpenRegular(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, oserr.NoPath(err)
	}
	if info, err := f.Stat(); err != nil || info.IsDir() {
		f.Close()
		return nil, errors.Join(err, errFolder)
	}
	return f, nil
}

var errFolder = errors.New("it is a folder")

// refusef returns an error of image.KindInvalid with the next step.
func refusef(next, format string, args ...any) error {
	return image.Errorf(image.KindInvalid, format, args...).WithHint(next)
}
