// Package store keeps one node's ciphertext files: it makes them durable, gives them back, and
// sweeps away what no record names. It knows nothing of what is in them.
//
// A data directory looks like this:
//
//	node.json, LOCK                      whose directory it is, and that it is in use (Claim)
//	images/tmp/<image-id>-<epoch>.tmp    files being written
//	images/<xx>/<image-id>-<epoch>.img   committed files
//
// xx is the last byte of the image ID, the random end of a UUIDv7. One level of 256 folders, all made
// and fsynced when the store is opened, is enough for millions of files. A second level would be
// made as it is needed, and cost nearly every image a chain of directory fsyncs.
//
// The order of a commit is: write, fsync the file, close, rename, fsync the directory. Only then may
// the node say Stored. Files are written with direct I/O: on a node that takes in images for minutes
// on end, filling the page cache with ciphertext that nobody reads soon costs several times the CPU
// of the encryption (see BenchmarkCommit). Names come from IDs only, through os.Root.
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
	// FreeBytesMin and FreeInodesMin are what Create leaves free on the file system, for the log and the
	// catalog.
	FreeBytesMin, FreeInodesMin int64
	// Buffered writes through the page cache even where direct I/O works.
	Buffered bool
	// OnUnknown is told each file under images/ that is not the store's, by its path in the data
	// directory, when Open and Sweep come across it. Such files are never touched.
	OnUnknown func(path string)
	// OnFailed is told when Failed begins to return an error. It must not call the Store.
	OnFailed func(error)
}

// Store is the images folder of one data directory. Its methods are safe for concurrent use. One
// process at a time may have it open, which Claim sees to.
type Store struct {
	fs       fileSystem
	opts     Options
	direct   bool
	opening  string // its directory, until it is open: hints to clients do not name it
	failed   atomic.Pointer[image.Error]
	failures atomic.Int64 // so far
	sweepMu  sync.Mutex   // one sweep at a time

	// mu orders what changes the set of visible files: rename and remove happen under it.
	mu    sync.Mutex
	live  map[key]bool // writers between Create and the end of Commit or Abort
	fresh map[key]bool // became visible since the running sweep began; nil without one
	used  [foldersCount]usage
}

// usage is what there is in a folder, and how often that has changed.
type usage struct{ files, bytes, changes int64 }

// Open opens the store in the data directory dir, which must exist, and makes its folders durable.
// It counts the files, so its time grows with them.
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
	return &Store{fs: fsys, opts: opts, live: map[key]bool{}}
}

func (s *Store) open() error {
	if err := s.makeFolders(); err != nil {
		return err
	}
	s.direct = !s.opts.Buffered && s.fs.canDirect(tmpDir+"/probe"+tmpSuffix)
	return s.List(func(image.ID, uint32, int64) error { return nil }) // which counts
}

// makeFolders makes what is missing, and always fsyncs: folders that a killed process left may be
// visible without being durable.
func (s *Store) makeFolders() error {
	if err := s.fs.mkdir(imagesDir); err != nil && !errors.Is(err, fs.ErrExist) {
		return s.fault("mkdir", imagesDir, err)
	}
	entries, err := s.fs.readDir(imagesDir)
	if err != nil {
		return s.fault(opRead, imagesDir, err)
	}
	missing := map[string]bool{tmpDir: true}
	for i := range foldersCount {
		missing[folder(byte(i))] = true
	}
	for _, e := range entries {
		delete(missing, imagesDir+"/"+e.name)
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

// Direct tells whether files are written with direct I/O.
func (s *Store) Direct() bool { return s.direct }

// Usage returns the number of committed files and their length together. Files that came or went without
// the Store's doing are in it after the next Sweep.
func (s *Store) Usage() (files, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.used {
		files += u.files
		bytes += u.bytes
	}
	return files, bytes
}

// count notes a change of what is visible. Held: mu.
func (s *Store) count(k key, files, bytes int64) {
	u := &s.used[k.id[15]]
	u.files += files
	u.bytes += bytes
	u.changes++
}

func (s *Store) changes(last byte) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used[last].changes
}

// recount takes what is seen in a folder for what is there, unless it has changed meanwhile.
func (s *Store) recount(last byte, seen usage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used[last].changes == seen.changes {
		s.used[last] = seen
	}
}

// Free returns the bytes and the inodes that the file system has left for this process; where inodes
// have no fixed number, NoInodeLimit.
func (s *Store) Free() (bytes, inodes int64, err error) {
	r, err := s.fs.free()
	if err != nil {
		return 0, 0, s.fault("statfs", imagesDir, err)
	}
	return r.bytes, r.inodes, nil
}

// NoInodeLimit is the number of free inodes where a file system makes them as they are needed.
const NoInodeLimit = hostinfo.NoInodeLimit

// RoomFor returns nil when Create would take so many files of so many bytes together, else the error that it
// would return.
func (s *Store) RoomFor(files, bytes int64) error {
	free, inodes, err := s.Free()
	switch {
	case err != nil:
		return err
	case free-bytes < s.opts.FreeBytesMin:
		return image.Errorf(image.KindDiskFull, "%d bytes are free, %d are needed and %d are kept in reserve (limits.disk_free_bytes)", free, bytes, s.opts.FreeBytesMin).
			WithHint("free space on the node's data disk, or remove images")
	case inodes-files < s.opts.FreeInodesMin:
		return noInodes(inodes, files, s.opts.FreeInodesMin)
	}
	return nil
}

// ErrNoInodes is in the chain of a KindDiskFull for lack of inodes and not of bytes.
var ErrNoInodes = errors.New("too few free inodes")

func noInodes(free, needed, reserve int64) error {
	e := image.Errorf(image.KindDiskFull, "%d inodes are free, %d are needed and %d are kept in reserve (limits.disk_free_inodes)", free, needed, reserve).
		WithHint("remove files from the node's data disk, or images, or give it a file system with more inodes")
	e.Err = ErrNoInodes
	return e
}

// Failed returns nil, or the first failure to make something durable. From then on Create and
// Commit fail, so that nothing more is acknowledged: after a failed fsync the kernel may have
// dropped what it could not write, and a second fsync would say yes to it. Files can still be read,
// and are from then on read from the disk itself. A full disk is not a failure. Retry ends it.
func (s *Store) Failed() error {
	if e := s.failed.Load(); e != nil {
		return e
	}
	return nil
}

// Remove removes a committed file; it is no error when there is none. After a power loss the file
// may be there again, for the sweep at start to remove.
func (s *Store) Remove(id image.ID, epoch uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.removeLocked(key{id, epoch})
	return err
}

// removeLocked returns the length of the file removed, -1 when there was none.
func (s *Store) removeLocked(k key) (int64, error) {
	size, err := s.fs.stat(k.path())
	if err == nil {
		err = s.fs.remove(k.path())
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return -1, nil
	case err != nil:
		return -1, s.fault("remove", k.String(), err)
	}
	failpoint.Here("store/removed")
	s.count(k, -1, -size)
	return size, nil
}

// Names of operations that fault treats apart.
const (
	opRead    = "read"
	opSyncDir = "fsync directory of"
)

// fault turns the failure of one file operation into the error for the caller, and remembers it in
// Failed when it puts the disk in doubt. The text names the file, not where this node keeps it.
func (s *Store) fault(op, name string, err error) error {
	cause := err
	if no := syscall.Errno(0); errors.As(err, &no) {
		cause = no
	}
	e := image.Errorf(image.KindInternal, "%s %s: %w", op, name, cause).
		WithHint(cmp.Or(oserr.Hint(err, s.opening), "check the node's disk (dmesg), then restart the node and run verify"))
	class := oserr.ClassOf(err)
	passing := class == oserr.Full || class == oserr.Scarce // the disk is none the worse for it
	switch class {
	case oserr.Full:
		e.Kind = image.KindDiskFull
	case oserr.Scarce:
		e.Kind = image.KindOverload
	}
	// A failed directory fsync is never put down to the file at hand: others renamed into it too.
	failedSync := op == opSyncDir && !errors.As(err, &notOpened{})
	if failedSync || !passing && op != opRead {
		s.failures.Add(1)
		if s.failed.CompareAndSwap(nil, e) && s.opts.OnFailed != nil {
			s.opts.OnFailed(e)
		}
	}
	return e
}

// List calls fn for each committed file, folder by folder and by name in each, until fn fails. Files that
// come or go meanwhile may be missed.
func (s *Store) List(fn func(id image.ID, epoch uint32, bytes int64) error) error {
	for i := range foldersCount {
		err := s.listFolder(byte(i), func(k key, bytes int64) error { return fn(k.id, k.epoch, bytes) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) listFolder(last byte, fn func(k key, bytes int64) error) error {
	dir := folder(last)
	seen := usage{changes: s.changes(last)}
	entries, err := s.fs.readDir(dir)
	if err != nil {
		return s.fault(opRead, dir, err)
	}
	files := make([]key, 0, len(entries))
	sizes := make([]int64, 0, len(entries))
	for _, e := range entries {
		k, ok := parseName(e.name, imgSuffix)
		if !ok || e.other || k.id[15] != last {
			s.unknown(dir + "/" + e.name)
			continue
		}
		files, sizes = append(files, k), append(sizes, e.size)
		seen.files++
		seen.bytes += e.size
	}
	s.recount(last, seen)
	for i, k := range files {
		if err := fn(k, sizes[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) unknown(path string) {
	if s.opts.OnUnknown != nil {
		s.opts.OnUnknown(path)
	}
}

func byName(a, b entry) int { return cmp.Compare(a.name, b.name) }
