package witness

import (
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// FS returns the file system for the catalog: under, where each file that only grows is written down with
// every fsync.
func (w *Witness) FS(under vfs.FS) vfs.FS { return &catalogFS{FS: under, w: w} }

// catalogFS is the file system of the catalog with a witness.
type catalogFS struct {
	vfs.FS
	w *Witness
}

func (c *catalogFS) watch(f vfs.File, err error, path string) (vfs.File, error) {
	name := c.w.nameOf(path)
	if err != nil || name == "" {
		return f, err
	}
	return &catalogFile{File: f, w: c.w, name: name, sum: xxhash.New()}, nil
}

// Create implements vfs.FS.
func (c *catalogFS) Create(path string, of vfs.DiskWriteCategory) (vfs.File, error) {
	if err := c.w.remove(true, c.w.nameOf(path)); err != nil {
		return nil, err
	}
	f, err := c.FS.Create(path, of)
	return c.watch(f, err, path)
}

// ReuseForWrite implements vfs.FS.
func (c *catalogFS) ReuseForWrite(old, path string, of vfs.DiskWriteCategory) (vfs.File, error) {
	if err := c.w.remove(true, c.w.nameOf(old), c.w.nameOf(path)); err != nil {
		return nil, err
	}
	f, err := c.FS.ReuseForWrite(old, path, of)
	return c.watch(f, err, path)
}

// OpenReadWrite implements vfs.FS: what is there was not hashed here.
func (c *catalogFS) OpenReadWrite(
	path string, of vfs.DiskWriteCategory, opts ...vfs.OpenOption,
) (vfs.File, error) {
	if err := c.w.remove(true, c.w.nameOf(path)); err != nil {
		return nil, err
	}
	return c.FS.OpenReadWrite(path, of, opts...)
}

// Link implements vfs.FS.
func (c *catalogFS) Link(old, path string) error {
	if err := c.w.remove(true, c.w.nameOf(path)); err != nil {
		return err
	}
	if err := c.FS.Link(old, path); err != nil {
		return err
	}
	c.w.link(c.w.nameOf(old), c.w.nameOf(path))
	return nil
}

// Rename implements vfs.FS.
func (c *catalogFS) Rename(old, path string) error {
	if err := c.w.remove(true, c.w.nameOf(old), c.w.nameOf(path)); err != nil {
		return err
	}
	return c.FS.Rename(old, path)
}

// Remove implements vfs.FS.
func (c *catalogFS) Remove(path string) error {
	if err := c.w.remove(false, c.w.nameOf(path)); err != nil {
		return err
	}
	return c.FS.Remove(path)
}

// Unwrap implements vfs.FS.
func (c *catalogFS) Unwrap() vfs.FS { return c.FS }

// catalogFile is a file of the catalog; it hashes what is written, from the beginning of the file.
type catalogFile struct {
	vfs.File
	w    *Witness
	name string

	mu   sync.Mutex
	sum  *xxhash.Digest
	size uint64
}

// Write implements vfs.File.
func (f *catalogFile) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := *f.sum
	f.sum.Write(p) // first: the file may change the bytes that it is given
	n, err := f.File.Write(p)
	f.size += uint64(n)
	if n < len(p) {
		*f.sum = before
		f.sum.Write(p[:n])
	}
	return n, err
}

// Sync implements vfs.File.
func (f *catalogFile) Sync() error { return f.synced(f.File.Sync) }

// SyncData implements vfs.File.
func (f *catalogFile) SyncData() error { return f.synced(f.File.SyncData) }

// synced writes down what was written before sync was called, once it is durable.
func (f *catalogFile) synced(sync func() error) error {
	f.mu.Lock()
	m := mark{f.size, f.sum.Sum64()}
	f.mu.Unlock()
	if err := sync(); err != nil {
		return err
	}
	f.w.update(f.name, m)
	return nil
}
