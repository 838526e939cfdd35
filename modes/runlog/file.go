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

	"golang.org/x/sys/unix"

	"imgcluster/cluster/durable"
	"imgcluster/cluster/image"
	"imgcluster/cluster/oserr"
)

// File is the run's log, which no other run writes as long as this one has it open: the lock ends with the
// process. What it held before stays until Start.
type File struct {
	*os.File
	path  string // without links
	fresh bool   // did not exist before
	keep  int64  // what a resumed run leaves of it, in bytes
	older string // what Older returns
}

// olderSuffix is the end of the name of the log before.
const olderSuffix = ".1"

// OpenFile opens and locks the log, for a run that leaves its first keep bytes. It refuses, with
// image.KindInvalid and a hint, what is no log of a run or is in use.
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

// lock makes the log this run's own. On a file system without locks there is none.
func (l *File) lock() error {
	hint := "wait until it has ended, or name another file with --log"
	if l.keep > 0 {
		hint = "wait until it has ended"
	}
	if err := unix.Flock(int(l.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return refusef(hint, "another stress is writing the log %s", l.path)
	}
	own, err := l.Stat()
	if err != nil {
		return err
	}
	// Between opening and locking, a run that ended or started may have taken the name away.
	if now, err := os.Stat(l.path); err != nil || !os.SameFile(own, now) {
		return refusef(hint, "another stress is using the log %s", l.path)
	}
	return nil
}

// checkOld refuses to replace what is no log, and finds what becomes of one.
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
		return refusef(hint, "%s, which the log of before would replace: %w", l.older, oserr.NoPath(err))
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > 0 && !isLog(f) {
		return refusef(hint, "%s is there, and is not the log of a run: the log of before would replace it",
			l.older)
	}
	return nil
}

// isLog reports whether a file begins as the log of a run does, of a newer version too.
func isLog(f *os.File) bool {
	line, err := bufio.NewReader(io.NewSectionReader(f, 0, 1<<20)).ReadBytes('\n')
	if err != nil {
		return false
	}
	log, err := Read(bytes.NewReader(line))
	return errors.Is(err, ErrNewerSchema) || err == nil && log.Run.Schema > 0
}

// Older returns the name under which Start keeps the log that is there; empty when there is none, or when this
// run goes on with it.
func (l *File) Older() string { return l.older }

// Start makes the log empty, or cuts off the line in which an interrupted run ended. A log that is there
// is kept under another name, which is returned.
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

// replace gives the old log its other name, and goes on with a new file.
func (l *File) replace() error {
	if err := os.Rename(l.path, l.older); err != nil {
		return refusef("name another file with --log", "the log of before: %w", err)
	}
	old, err := l.Stat()
	if err != nil {
		return fmt.Errorf("the log: %w", err)
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
		os.Remove(l.path) // an empty file is all that stays
	}
	return l.Close()
}

// OpenRegular opens a file to read, but no folder. Its error names no path.
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

// refusef returns a refusal of what was asked for, and the next step.
func refusef(next, format string, args ...any) error {
	return image.Errorf(image.KindInvalid, format, args...).WithHint(next)
}
