package exchange

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/oserr"
	"imgcluster/cluster/wire"
	"imgcluster/modes/term"
)

// readTries is how often an image is opened whose bytes do not come to their end or are not its own.
const readTries = 3

// Export writes the images of a user into a folder.
type Export struct {
	Move
	Cluster string // its name
	Dir     string

	folder  *folder
	avoidMu sync.Mutex
	avoid   map[image.NodeID]bool // nodes that have failed: they are not asked first any more
}

// exported is an image to export.
type exported struct {
	wire.Info
	file string // its place in the folder
	old  *entry // what the manifest had; nil: nothing
}

// Run exports. It goes on with what is in the folder, where that has the right SHA-256. Its error is why it
// could not go on; images that could not be exported are counted and reported.
func (x *Export) Run(ctx context.Context) (Tally, error) {
	f, err := openFolder(x.Dir, x.Cluster, x.User)
	if err != nil {
		return x.tally, err
	}
	defer f.close()
	x.folder = f
	x.avoid = map[image.NodeID]bool{}
	images, err := x.list(ctx)
	if err != nil {
		return x.tally, err
	}
	if err := errors.Join(x.place(images), x.room(images)); err != nil {
		return x.tally, f.cannot(err)
	}
	if err := f.begin(); err != nil {
		return x.tally, f.cannot(err)
	}
	if err := each(ctx, x.AtOnce, images, x.one); err != nil {
		return x.tally, f.cannot(errors.Join(err, f.stop()))
	}
	return x.tally, f.cannot(f.end(x.tally.Failed == 0))
}

// list returns the images that there are, and reports the files of those that there are no more.
func (x *Export) list(ctx context.Context) (images []*exported, err error) {
	there := map[string]bool{}
	for info, err := range x.Client.All(ctx, x.User, "") {
		if err == nil {
			err = image.CheckName(info.Name) // what is a path below
		}
		if err != nil {
			return nil, err
		}
		info.Replicas = slices.DeleteFunc(info.Replicas, func(id image.NodeID) bool { return id == info.Owner })
		images = append(images, &exported{Info: info})
		there[info.Name] = true
		x.tally.Of++
		x.tally.OfBytes += info.Bytes
	}
	old := x.folder.old.images
	for _, name := range slices.Sorted(maps.Keys(old)) {
		e := old[name]
		if e.Gone = !there[name]; !e.Gone {
			continue
		}
		if x.folder.size(e.file()) < 0 {
			delete(old, name)
			continue
		}
		x.tell(Event{Type: Gone, Name: name, File: filepath.Join(x.Dir, e.file())})
	}
	return images, nil
}

// place gives every image its file: the one that it has in the folder, else one that no other image has.
func (x *Export) place(images []*exported) error {
	folds, err := x.folder.folds()
	if err != nil {
		return err
	}
	l := newLayout(folds)
	for _, e := range x.folder.old.images {
		l.use(e.file())
	}
	for _, i := range images {
		l.expect(i.Name)
	}
	for _, i := range images {
		if i.old = x.folder.old.images[i.Name]; i.old != nil {
			i.file = i.old.file()
		} else {
			i.file = l.place(i.Name)
		}
	}
	return nil
}

// room refuses an export for which there is no room.
func (x *Export) room(images []*exported) error {
	var needed int64
	for _, i := range images {
		if x.folder.size(i.file) != i.Bytes {
			needed += i.Bytes
		}
	}
	if free, ok := freeBytes(x.folder.lock); ok && needed > free {
		return &advised{
			fmt.Errorf("%s has room for %s, and the images need %s more",
				x.Dir, term.Bytes(free), term.Bytes(needed)),
			"make room there, or export into a folder of a larger file system",
		}
	}
	return nil
}

// one exports one image. Its error ends the export.
func (x *Export) one(ctx context.Context, i *exported) error {
	e, err := x.present(i)
	if err == nil && e != nil {
		err = x.folder.add(e)
		x.count(func(t *Tally) { t.Present++ })
		return err
	}
	if err == nil {
		e, err = x.fetch(ctx, i)
	}
	switch {
	case err == nil:
		err = x.folder.add(e)
		x.moved(e.Bytes)
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case ends(err):
		return err
	case image.KindOf(err) == image.KindNotFound:
		err = &advised{errors.New("it was deleted meanwhile"), "nothing is to be done"}
	case isLocal(err):
		err = &advised{
			fmt.Errorf("its file cannot be written: %w", oserr.NoPath(err)), "see what is at " + i.file + " there",
		}
	}
	x.tell(Event{Type: Failed, Name: i.Name, File: filepath.Join(x.Dir, i.file), Err: err})
	return nil
}

// present returns what the manifest says of an image that is in the folder as it is in the cluster, else nil.
// Where the cluster has no digest of it, it is that of the version which was exported.
func (x *Export) present(i *exported) (*entry, error) {
	e := i.entry(x.User)
	if e.SHA256 == (image.Digest{}) {
		if i.old == nil || i.old.Version != i.Version || !i.old.Created.Equal(i.Created) {
			return nil, nil
		}
		e.SHA256 = i.old.SHA256
	}
	if x.folder.size(i.file) != i.Bytes {
		return nil, nil
	}
	file, err := x.folder.root.OpenFile(i.file, readFlags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	sum, _, err := digest(io.Discard, file)
	if err != nil || sum != e.SHA256 {
		return nil, err
	}
	return e, nil
}

// entry is what the manifest will have.
func (i *exported) entry(user string) *entry {
	e := &entry{
		User: user, Name: i.Name, Version: i.Version, Bytes: i.Bytes, Type: i.Type, Created: i.Created,
	}
	if i.file != i.Name {
		e.File = i.file
	}
	e.SHA256.UnmarshalText([]byte(i.SHA256)) // stays zero where the cluster has none
	return e
}

// fetch writes an image into the folder.
func (x *Export) fetch(ctx context.Context, i *exported) (e *entry, err error) {
	for range readTries {
		var node image.NodeID
		if e, node, err = x.fetchOnce(ctx, i); err == nil || ctx.Err() != nil || isLocal(err) {
			return e, err
		}
		switch image.KindOf(err) {
		case image.KindAborted, image.KindDigest: // in mid-body: another node may have all of it
			x.leaveOut(node)
		default:
			return nil, err
		}
	}
	return nil, err
}

// fetchOnce is one try, with the node that served it.
func (x *Export) fetchOnce(ctx context.Context, i *exported) (*entry, image.NodeID, error) {
	obj, err := x.open(ctx, i)
	if err != nil {
		return nil, 0, err
	}
	defer obj.Body.Close()
	now := exported{Info: obj.Info.Info, file: i.file} // it may be a newer one than that of the list
	e := now.entry(x.User)
	t, err := x.folder.temp()
	if err != nil {
		return nil, 0, err
	}
	sum, n, err := digest(t, obj.Body)
	switch {
	case err != nil:
	case n != obj.Size, e.SHA256 != (image.Digest{}) && e.SHA256 != sum:
		err = image.Errorf(image.KindDigest, "node %d sent %d bytes with the SHA-256 %s, not that of the image",
			obj.Node, n, sum).WithHint("see what imgcluster verify finds")
	default:
		err = t.commit(e.file())
		if unfit(err) && e.File == "" { // for this file system
			e.File = otherFile(e.Name)
			err = t.commit(e.File)
		}
	}
	if err != nil {
		t.discard()
		return nil, obj.Node, err
	}
	e.SHA256 = sum
	return e, obj.Node, nil
}

// unfit reports whether a file system does not take a path, or something is in its way.
func unfit(err error) bool {
	return slices.ContainsFunc(unfitting, func(no error) bool { return errors.Is(err, no) })
}

// open opens an image at a node that has a copy, where that answers: the nodes share the work, and send each
// other nothing.
func (x *Export) open(ctx context.Context, i *exported) (*client.Object, error) {
	for _, id := range append([]image.NodeID{i.Owner}, i.Replicas...) {
		x.avoidMu.Lock()
		avoid := x.avoid[id]
		x.avoidMu.Unlock()
		if avoid {
			continue
		}
		obj, err := x.Client.GetFrom(ctx, id, x.User, i.Name)
		if err == nil {
			return obj, nil
		}
		if kind := image.KindOf(err); kind == image.KindNotFound || ctx.Err() != nil {
			return nil, err
		}
		x.leaveOut(id)
	}
	return x.Client.Get(ctx, x.User, i.Name, false)
}

func (x *Export) leaveOut(id image.NodeID) {
	x.avoidMu.Lock()
	defer x.avoidMu.Unlock()
	x.avoid[id] = true
}

var buffers = sync.Pool{New: func() any { b := make([]byte, copyBytes); return &b }}

// digest copies r to w and returns the SHA-256 and number of its bytes.
func digest(w io.Writer, r io.Reader) (sum image.Digest, n int64, err error) {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	h := sha256.New()
	n, err = io.CopyBuffer(both{w, h}, struct{ io.Reader }{r}, *buffer)
	return image.Digest(h.Sum(nil)), n, err
}

// both writes to a file and a hash.
type both struct {
	w io.Writer
	h hash.Hash
}

func (b both) Write(p []byte) (int, error) {
	b.h.Write(p)
	return b.w.Write(p)
}
