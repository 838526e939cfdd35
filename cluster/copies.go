package cluster

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"imgcluster/cluster/image"
	"imgcluster/cluster/peer"
	"imgcluster/cluster/read"
)

// copies is what repair works on: it implements repair.Copies, with Verify of read.Images.
type copies struct {
	*read.Images
	peers      *peer.Set
	encrypted  encryptedStore
	references *references
}

// Has implements repair.Copies.
func (m *copies) Has(id image.FileID) (bool, error) {
	f, err := m.encrypted.Open(id)
	if image.KindOf(err) == image.KindNotFound || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, f.Close()
}

// copyBytesMax bounds the file of a copy by the length of its plaintext.
func copyBytesMax(plaintext int64) int64 { return 2*plaintext + 1<<20 }

// Make implements repair.Copies: the copy is a file of its own, with an attempt and a data key that no other
// has. It ends when the other node sends nothing for a while, however long all takes.
func (m *copies) Make(
	ctx context.Context, rec *image.Record, from image.Copy, to image.Attempt,
) (made image.Copy, err error) {
	src, err := m.open(ctx, rec, from)
	if err != nil {
		return made, err
	}
	defer src.Close()
	made = image.Copy{Node: m.Self, Attempt: to}
	w, err := m.encrypted.create(ctx, rec.User, rec.File(made), rec.Bytes)
	if err != nil {
		return made, err
	}
	defer w.Abort()
	made.Key = w.UserKey()
	if err := m.Authenticate(ctx, w, rec, from, src); err != nil {
		return made, err
	}
	return made, w.Commit()
}

// open opens the file of a copy, here or on another node.
func (m *copies) open(ctx context.Context, rec *image.Record, c image.Copy) (io.ReadCloser, error) {
	if c.Node == m.Self {
		return m.OpenCopy(rec.File(c))
	}
	size, err := m.peers.CopyBytes(ctx, c.Node, rec.File(c))
	if err != nil {
		return nil, err
	}
	if size > copyBytesMax(rec.Bytes) {
		return nil, image.Errorf(image.KindDamaged, "the copy on node %d has %d bytes for an image of %d", c.Node,
			size, rec.Bytes)
	}
	return m.peers.OpenCopy(ctx, c.Node, rec.File(c), 0, size)
}

// Pin implements repair.Copies.
func (m *copies) Pin(f image.FileID) (release func()) { return m.references.pins.add(f) }

// Remove implements repair.Copies.
func (m *copies) Remove(f image.FileID) error {
	if wanted, err := m.references.wanted(f); wanted || err != nil {
		return err
	}
	return m.encrypted.Remove(f)
}

// Suspect implements repair.Copies.
func (m *copies) Suspect(ctx context.Context, node image.NodeID, rec *image.Record) error {
	return m.peers.Suspect(ctx, node, rec)
}
