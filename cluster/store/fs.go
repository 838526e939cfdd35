package store

import (
	"errors"
	"io"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"imgcluster/cluster/hostinfo"
)

// fileSystem has every disk operation of the package, so that tests can record them, fail them one by
// one, and lose what was not synced. Names are relative to the data directory.
type fileSystem interface {
	mkdir(name string) error
	canDirect(probe string) bool // tries direct I/O on a file of that name, which it removes again
	create(name string, direct bool) (file, error)
	// open opens a file for reading; uncached: from the disk, not from the page cache.
	open(name string, uncached bool) (r readFile, size int64, err error)
	stat(name string) (size int64, err error)
	rename(from, to string) error
	remove(name string) error
	// readDir calls fn with the entries of a directory, dirBatch at most at a time, each time sorted by name,
	// until fn returns an error. Their sizes cost a system call each. It may miss what is added or removed
	// meanwhile.
	readDir(name string, sizes bool, fn func([]entry) error) error
	syncDir(name string) error
	free() (freeSpace, error)
	close() error
}

// freeSpace is what a file system has left for this process. inodes is NoInodeLimit where they have no
// fixed number.
type freeSpace struct{ bytes, inodes int64 }

// notOpened is the error of a directory that was not fsynced because it could not be opened. Unlike a
// failed fsync it does not put in doubt what was written.
type notOpened struct{ error }

func (n notOpened) Unwrap() error { return n.error }

// file is a file being written. The operations come in the order of this list.
type file interface {
	allocate(size int64) error
	write(p []byte) error
	writeBack(off, n int64) error // starts writing to the disk without waiting for it
	endDirect() error             // later writes need no alignment
	sync() error
	close() error
}

// entry is one name in a directory. other: not a regular file.
type entry struct {
	name  string
	size  int64 // where sizes were asked for
	other bool
}

// dirBatch bounds the names of a directory that are in memory: folders have as many as there are images.
const dirBatch = 512

const (
	dirMode  = 0o700
	fileMode = 0o600
	// interruptsMax bounds how often a system call is repeated after a signal.
	interruptsMax = 100
)

// osFS is the real file system below one directory. Single files are named by their path from it, in one
// system call each, where os.Root has several for every part of a path: their names are made from IDs.
type osFS struct {
	root *os.Root
	top  *os.File // the directory
}

func openOS(dir string) (*osFS, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	top, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &osFS{root, top}, nil
}

func (o *osFS) close() error            { return errors.Join(o.top.Close(), o.root.Close()) }
func (o *osFS) mkdir(name string) error { return o.root.Mkdir(name, dirMode) }

// at calls fn with the descriptor of the directory, again after a signal.
func (o *osFS) at(fn func(dir int) error) error {
	return restart(func() error { return fn(int(o.top.Fd())) })
}

func (o *osFS) openFile(name string, flags int) (fd int, err error) {
	err = o.at(func(dir int) (err error) {
		fd, err = unix.Openat(dir, name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, fileMode)
		return err
	})
	return fd, err
}

func (o *osFS) rename(from, to string) error {
	return o.at(func(dir int) error { return unix.Renameat(dir, from, dir, to) })
}

func (o *osFS) remove(name string) error {
	return o.at(func(dir int) error { return unix.Unlinkat(dir, name, 0) })
}

func (o *osFS) stat(name string) (int64, error) {
	var st unix.Stat_t
	err := o.at(func(dir int) error { return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return st.Size, err
}

func (o *osFS) create(name string, direct bool) (file, error) {
	flags := unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC
	if direct {
		flags |= directFlag
	}
	fd, err := o.openFile(name, flags)
	if err != nil {
		return nil, err
	}
	return osFile(fd), nil
}

func (o *osFS) canDirect(probe string) bool {
	if directFlag == 0 {
		return false
	}
	f, err := o.create(probe, true)
	if err != nil {
		return false
	}
	buf := directBuffers.Get().(*[]byte)
	defer directBuffers.Put(buf)
	err = errors.Join(f.write((*buf)[:alignBytes]), f.close())
	return errors.Join(err, o.remove(probe)) == nil
}

func (o *osFS) open(name string, uncached bool) (readFile, int64, error) {
	fd, err := o.openFile(name, unix.O_RDONLY)
	if err != nil {
		return nil, 0, err
	}
	var st unix.Stat_t
	if uncached {
		err = dropCache(fd)
	}
	if err == nil {
		err = restart(func() error { return unix.Fstat(fd, &st) })
	}
	if err != nil {
		return nil, 0, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), st.Size, nil
}

func (o *osFS) readDir(name string, sizes bool, fn func([]entry) error) error {
	d, err := o.root.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	batch := make([]entry, 0, dirBatch)
	for {
		batch = batch[:0]
		if sizes {
			var infos []os.FileInfo
			infos, err = d.Readdir(dirBatch) // leaves out what vanished before its Lstat
			for _, info := range infos {
				batch = append(batch, entry{info.Name(), info.Size(), !info.Mode().IsRegular()})
			}
		} else {
			var list []os.DirEntry
			list, err = d.ReadDir(dirBatch)
			for _, e := range list {
				batch = append(batch, entry{name: e.Name(), other: !e.Type().IsRegular()})
			}
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		slices.SortFunc(batch, byName)
		if failed := fn(batch); failed != nil || err != nil {
			return failed
		}
	}
}

func (o *osFS) syncDir(name string) error {
	fd, err := o.openFile(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return notOpened{err}
	}
	d := osFile(fd)
	return errors.Join(d.sync(), d.close())
}

func (o *osFS) free() (freeSpace, error) {
	var st unix.Statfs_t
	if err := restart(func() error { return unix.Fstatfs(int(o.top.Fd()), &st) }); err != nil {
		return freeSpace{}, err
	}
	return freeSpace{int64(st.Bavail) * int64(st.Bsize), hostinfo.FreeInodes(&st)}, nil
}

// osFile is the descriptor of a file of osFS.
type osFile int

func (o osFile) write(p []byte) error {
	for len(p) > 0 {
		n := 0
		err := restart(func() (err error) {
			n, err = unix.Write(int(o), p)
			return err
		})
		if err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func (o osFile) close() error { return unix.Close(int(o)) }

// restart repeats a system call that a signal interrupted.
func restart(call func() error) error {
	for range interruptsMax {
		if err := call(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
	return syscall.EINTR
}
