package exchange

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"imgcluster/cluster/durable"
	"imgcluster/cluster/oserr"
)

const (
	checkpointImages = 256 // are on the disk before the manifest has them, and their folders are fsynced once
	folderMode       = 0o777
	fileMode         = 0o666 // before the umask, as get does
)

// folder is the folder of an export that is under way. Its methods are safe for concurrent use.
type folder struct {
	root *os.Root
	old  *manifest // of the export that it goes on with; its images are those of the manifest so far

	mu      sync.Mutex
	log     *os.File // the manifest
	pending []*entry // that it does not have yet
	lock    *os.File
}

// openFolder makes or takes the folder of an export of a user, and keeps other exports out of it. It is
// refused when something else is in it.
func openFolder(dir, cluster, user string) (*folder, error) {
	if err := durable.MakeDir(dir); err != nil {
		return nil, refusef("name another folder", "%s cannot be made: %w", dir, oserr.NoPath(err))
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, refusef("name another folder", "%s cannot be opened: %w", dir, oserr.NoPath(err))
	}
	f := &folder{root: root}
	if err := f.take(cluster, user); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *folder) take(cluster, user string) (err error) {
	dir := f.root.Name()
	if f.lock, err = f.root.Open("."); err != nil {
		return err
	}
	if isLocked(f.lock) {
		return refusef("wait until it has ended", "another export into %s is running", dir)
	}
	f.old, err = readManifest(f.root)
	switch {
	case errors.Is(err, ErrNoExport):
		f.old = &manifest{
			Header: Header{Schema: schema, Cluster: cluster, User: user, Started: time.Now()},
			images: map[string]*entry{},
		}
		return f.expectEmpty()
	case err != nil:
		return err
	case f.old.Cluster != cluster:
		return refusef(whatIsThis, "%s is an export of the cluster %q, not of %q", dir, f.old.Cluster, cluster)
	case f.old.User != user:
		return refusef(whatIsThis, "%s is an export of user %q, not of %q", dir, f.old.User, user)
	}
	return f.sweep()
}

// expectEmpty refuses a folder that has anything in it but what a new file system has, or a cut export.
func (f *folder) expectEmpty() error {
	names, err := names(f.root)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name != "lost+found" && !strings.HasPrefix(name, tempPrefix) {
			return refusef(whatIsThis, "%s is not empty, and no export: it has %q", f.root.Name(), name)
		}
	}
	return f.sweep()
}

// names lists a folder.
func names(root *os.Root) ([]string, error) {
	d, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// sweep removes what an export that was killed has left.
func (f *folder) sweep() error {
	names, err := names(f.root)
	for _, name := range names {
		if strings.HasPrefix(name, tempPrefix) {
			err = errors.Join(err, f.root.Remove(name))
		}
	}
	return err
}

// folds reports whether capitals make no difference in the folder.
func (f *folder) folds() (bool, error) {
	t, err := f.temp()
	if err != nil {
		return false, err
	}
	defer t.discard()
	_, err = f.root.Lstat(strings.ToLower(t.name))
	return err == nil, nil
}

// temp is a file of the folder that is not complete.
type temp struct {
	*os.File
	root *os.Root
	name string
}

func (f *folder) temp() (*temp, error) {
	name := tempPrefix + rand.Text() // in capitals
	file, err := f.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	return &temp{file, f.root, name}, err
}

func (t *temp) discard() {
	t.Close()
	t.root.Remove(t.name)
}

// commit makes the file durable and renames it to a path, whose folders it makes. The name is durable once
// its folder is fsynced. After an error the file stays, to be discarded or committed to another path.
func (t *temp) commit(file string) error {
	if err := t.Sync(); err != nil {
		return err
	}
	if dir := path.Dir(file); dir != "." {
		if err := t.root.MkdirAll(dir, folderMode); err != nil {
			return err
		}
	}
	if err := t.root.Rename(t.name, file); err != nil {
		return err
	}
	return t.Close()
}

// begin writes the manifest so far and opens it for more.
func (f *folder) begin() (err error) {
	f.old.complete = false
	if err := f.root.Remove(sumsName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // it would not be that of the files from here on
	}
	if err := f.replace(manifestName, f.old.write); err != nil {
		return err
	}
	f.log, err = f.root.OpenFile(manifestName, os.O_WRONLY|os.O_APPEND, 0)
	return err
}

// replace writes a file in place of another, durably.
func (f *folder) replace(name string, write func(io.Writer) error) error {
	t, err := f.temp()
	if err != nil {
		return err
	}
	buffer := bufio.NewWriter(t)
	if err := errors.Join(write(buffer), buffer.Flush()); err != nil {
		t.discard()
		return err
	}
	if err := t.commit(name); err != nil {
		t.discard()
		return err
	}
	return syncFolder(f.lock)
}

// add records an image whose file is complete.
func (f *folder) add(e *entry) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.old.images[e.Name] = e
	if f.pending = append(f.pending, e); len(f.pending) < checkpointImages {
		return nil
	}
	return f.flush()
}

// flush makes the names of what was added durable, and then appends it to the manifest. The caller holds mu.
func (f *folder) flush() error {
	dirs := map[string]bool{".": true}
	for _, e := range f.pending {
		for _, dir := range parents(e.file()) {
			dirs[dir] = true
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(dirs)) {
		d, err := f.root.Open(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(syncFolder(d), d.Close()); err != nil {
			return err
		}
	}
	buffer := bufio.NewWriter(f.log)
	for _, e := range f.pending {
		if err := encode(buffer, e); err != nil {
			return err
		}
	}
	f.pending = nil
	return buffer.Flush()
}

// stop records what is there of an export that is not at its end.
func (f *folder) stop() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(f.flush(), f.log.Sync())
}

// end records everything; complete: all images are there.
func (f *folder) end(complete bool) error {
	if err := f.stop(); err != nil {
		return err
	}
	f.old.complete = complete
	return errors.Join(f.replace(sumsName, f.old.writeSums), f.replace(manifestName, f.old.write))
}

func (f *folder) close() {
	for _, file := range []*os.File{f.log, f.lock} {
		if file != nil {
			file.Close()
		}
	}
	f.root.Close()
}

// size returns the size of a regular file, -1 where there is none.
func (f *folder) size(file string) int64 {
	info, err := f.root.Lstat(file)
	if err != nil || !info.Mode().IsRegular() {
		return -1
	}
	return info.Size()
}

// cannot adds the folder to an error of a file in it.
func (f *folder) cannot(err error) error {
	if !isLocal(err) {
		return err
	}
	err = fmt.Errorf("%s cannot be written: %w", f.root.Name(), oserr.NoPath(err))
	return &advised{err, oserr.Hint(err, f.root.Name())}
}
