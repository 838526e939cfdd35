// Package store keeps one node's ciphertext files: it makes them durable, opens them for reading, and
// deletes those that no record names. It does not look into them: encryption and authentication are the
// callers'. An upload is written between its header and the node's report that it is stored.
//
// A data directory looks like this:
//
//	node.json, LOCK                      the node's identity, and the lock of its process (Claim)
//	images/tmp/<file>.tmp                files being written
//	images/<xx>/<file>.img               committed files
//
// <file> is <image-id>-<shard>-<attempt> (image.FileID). The attempt is random, so that a name is used once:
// a committed file never changes and is never replaced. xx comes from the time in the image ID, a UUIDv7:
// images that come together share a folder, and its fsyncs, and in the long run all folders get as many. One
// level of 256 folders, all made and fsynced when the store is opened, is enough for millions of files. A
// second level would have to be made on demand.
//
// The order of a commit is: write, fsync the file, close, rename, fsync the directory. Only then may
// the node report the file as stored. Files are written with direct I/O, but for small ones: under minutes of
// uploads, filling the page cache with ciphertext that is not read soon costs several times the CPU time of
// the encryption (see BenchmarkCommit). File names come from IDs only.
package store

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/hostinfo"
	"imgcluster/cluster/image"
	"imgcluster/cluster/oserr"
)

// Options are a store's settings. The zero value is useful.
type Options struct {
	// FreeBytesMin and FreeInodesMin are the bytes and inodes that Create leaves free on the file system,
	// for the log and the catalog.
	FreeBytesMin, FreeInodesMin int64
	// Buffered writes through the page cache even where direct I/O works.
	Buffered bool
	// OnUnknown is called by Sweep for each file under images/ that is not the store's, with its
	// path in the data directory. Such files are never touched.
	OnUnknown func(path string)
	// OnFailed is called with Failed's error when there begins to be one. It must not call the Store.
	OnFailed func(error)
}

// Store is the images folder of one data directory. Its methods are safe for concurrent use. Only one
// process at a time may have it open, which Claim ensures.
type Store struct {
	fs       fileSystem
	opts     Options
	direct   bool
	opening  string // the directory, for hints; empty once open: clients must not see it
	failed   atomic.Pointer[image.Error]
	failures atomic.Int64 // number since Open
	sweepMu  sync.Mutex   // one sweep at a time

	// mu orders what changes the set of visible files: rename and remove happen under it.
	mu        sync.Mutex
	writing   map[image.FileID]bool // by Writers, from Create to the end of Commit or Abort
	published map[image.FileID]bool // became visible since the running sweep began; nil when none runs
	used      [foldersCount]usage

	syncs [foldersCount]folderSync
}

// usage is a folder's files and their bytes, and how often these changed.
type usage struct{ files, bytes, changes int64 }

// Open opens the store in the data directory dir, which must exist, and makes its folders durable. Its time
// does not grow with the files.
func Open(dir string, opts Options) (*Store, error) {
	osfs, err := openOS(dir)
	if err != nil {
		return nil, image.Errorf(image.KindInternal, "open data directory: %w", err).
			WithHint("claim the data directory first; check that it exists and is this user's")
	}
	s := newStore(osfs, opts)
	s.opening = dir
	if err := s.open(); err != nil {
		return nil, errors.Join(err, osfs.close())
	}
	s.opening = ""
	return s, nil
}

func newStore(fsys fileSystem, opts Options) *Store {
	return &Store{fs: fsys, opts: opts, writing: map[image.FileID]bool{}}
}

func (s *Store) open() error {
	if err := s.makeFolders(); err != nil {
		return err
	}
	s.direct = !s.opts.Buffered && s.fs.canDirect(tmpDir+"/probe"+tmpSuffix)
	return nil
}

// makeFolders makes the missing folders, and always fsyncs: folders that a killed process made may be
// visible without being durable.
func (s *Store) makeFolders() error {
	if err := s.fs.mkdir(imagesDir); err != nil && !errors.Is(err, fs.ErrExist) {
		return s.fault("mkdir", imagesDir, err)
	}
	missing := map[string]bool{tmpDir: true}
	for i := range foldersCount {
		missing[folder(byte(i))] = true
	}
	err := s.fs.readDir(imagesDir, false, func(batch []entry) error {
		for _, e := range batch {
			delete(missing, imagesDir+"/"+e.name)
		}
		return nil
	})
	if err != nil {
		return s.fault(opRead, imagesDir, err)
	}
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		if err := s.fs.mkdir(name); err != nil {
			return s.fault("mkdir", name, err)
		}
	}
	for _, name := range []string{imagesDir, "."} {
		if err := s.fs.syncDir(name); err != nil {
			return s.fault(opSyncDir, name, err)
		}
	}
	return nil
}

// Close releases the directory. Writers must have ended, Files must be closed.
func (s *Store) Close() error { return s.fs.close() }

// Usage returns the number of committed files and the sum of their bytes. Sweep counts them: those that were
// there before Open from the first one on, and those that somebody else added or removed from the next one
// on.
func (s *Store) Usage() (files, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.used {
		files += u.files
		bytes += u.bytes
	}
	return max(0, files), max(0, bytes) // less than none: files were removed that are not counted yet
}

// count updates a folder's usage after a rename or a removal. The caller holds mu.
func (s *Store) count(f image.FileID, files, bytes int64) {
	u := &s.used[folderNumber(f.Image)]
	u.files += files
	u.bytes += bytes
	u.changes++
}

func (s *Store) changes(last byte) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used[last].changes
}

// recount sets a folder's usage to what a listing found, unless the folder changed meanwhile.
func (s *Store) recount(last byte, seen usage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used[last].changes == seen.changes {
		s.used[last] = seen
	}
}

// Free returns the bytes and inodes that the file system has left for this process. Where inodes have no
// fixed number it returns NoInodeLimit for them.
func (s *Store) Free() (bytes, inodes int64, err error) {
	r, err := s.fs.free()
	if err != nil {
		return 0, 0, s.fault("statfs", imagesDir, err)
	}
	return r.bytes, r.inodes, nil
}

// NoInodeLimit is the number of free inodes of a file system that makes inodes on demand.
const NoInodeLimit = hostinfo.NoInodeLimit

// RoomFor returns the error for lack of space that Create would return if it had to store that many more
// files, of bytes in all; nil when there is room.
func (s *Store) RoomFor(files, bytes int64) error {
	free, inodes, err := s.Free()
	switch {
	case err != nil:
		return err
	case free-bytes < s.opts.FreeBytesMin:
		return image.Errorf(image.KindDiskFull,
			"%d bytes are free, %d are needed and %d are kept in reserve (limits.disk_free_bytes)",
			free, bytes, s.opts.FreeBytesMin).
			WithHint("free space on the node's data disk, or remove images")
	case inodes-files < s.opts.FreeInodesMin:
		return noInodes(inodes, files, s.opts.FreeInodesMin)
	}
	return nil
}

// ErrNoInodes is in the chain of an error of KindDiskFull when inodes are lacking, not bytes.
var ErrNoInodes = errors.New("too few free inodes")

func noInodes(free, needed, reserve int64) error {
	e := image.Errorf(image.KindDiskFull,
		"%d inodes are free, %d are needed and %d are kept in reserve (limits.disk_free_inodes)",
		free, needed, reserve).
		WithHint("remove files from the node's data disk, or images," +
			" or give it a file system with more inodes")
	e.Err = ErrNoInodes
	return e
}

// Failed returns the first failure to make something durable, or nil. From then on Create and Commit fail,
// so that nothing more is acknowledged: after a failed fsync the kernel may have dropped what it could not
// write, and a second fsync would succeed without it. Files can still be read, from then on from the disk
// and not from the page cache. A full disk is not a failure. Retry clears the failure.
func (s *Store) Failed() error {
	if e := s.failed.Load(); e != nil {
		return e
	}
	return nil
}

// Remove removes a committed file; a missing one is no error. After a power loss the file may be there
// again, until the sweep at start removes it.
func (s *Store) Remove(f image.FileID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.removeLocked(f)
	return err
}

// removeLocked returns the length of the file removed, -1 when there was none.
func (s *Store) removeLocked(f image.FileID) (int64, error) {
	size, err := s.fs.stat(PathOf(f))
	if err == nil {
		err = s.fs.remove(PathOf(f))
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return -1, nil
	case err != nil:
		return -1, s.fault("remove", f.String(), err)
	}
	failpoint.Here("store/removed")
	s.count(f, -1, -size)
	return size, nil
}

// Names of the operations that fault treats differently.
const (
	opRead    = "read"
	opSyncDir = "fsync directory of"
)

// fault turns the failure of one file operation into the error for the caller, and keeps it for Failed when
// it puts the disk in doubt. The text names the file without its path on this node.
func (s *Store) fault(op, name string, err error) error {
	cause := err
	if no := syscall.Errno(0); errors.As(err, &no) {
		cause = no
	}
	e := image.Errorf(image.KindInternal, "%s %s: %w", op, name, cause).
		WithHint(cmp.Or(oserr.Hint(err, s.opening),
			"check the node's disk (dmesg), then restart the node and run verify"))
	class := oserr.ClassOf(err)
	harmless := class == oserr.Full || class == oserr.Scarce // what is on the disk is as it was
	switch class {
	case oserr.Full:
		e.Kind = image.KindDiskFull
	case oserr.Scarce:
		e.Kind = image.KindOverload
	}
	// A failed directory fsync concerns every file renamed into the directory, not this one alone.
	failedSync := op == opSyncDir && !errors.As(err, &notOpened{})
	if failedSync || !harmless && op != opRead {
		s.failures.Add(1)
		if s.failed.CompareAndSwap(nil, e) && s.opts.OnFailed != nil {
			s.opts.OnFailed(e)
		}
	}
	return e
}

// listFolder calls fn for each committed file of a folder until fn returns an error. It returns what the
// folder has. It may miss files that are added or removed meanwhile.
func (s *Store) listFolder(last byte, fn func(image.FileID) error) (seen usage, err error) {
	dir := folder(last)
	seen.changes = s.changes(last)
	var failed error
	err = s.fs.readDir(dir, true, func(batch []entry) error {
		for _, e := range batch {
			f, ok := parseName(e.name, imgSuffix)
			if !ok || e.other || folderNumber(f.Image) != last {
				s.unknown(dir + "/" + e.name)
				continue
			}
			seen.files++
			seen.bytes += e.size
			if failed = fn(f); failed != nil {
				return failed
			}
		}
		return nil
	})
	if failed == nil && err != nil {
		failed = s.fault(opRead, dir, err)
	}
	return seen, failed
}

func (s *Store) unknown(path string) {
	if s.opts.OnUnknown != nil {
		s.opts.OnUnknown(path)
	}
}

func byName(a, b entry) int { return cmp.Compare(a.name, b.name) }
