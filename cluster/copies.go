package cluster

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"

	"imgcluster/cluster/image"
	"imgcluster/cluster/peer"
	"imgcluster/cluster/read"
	"imgcluster/cluster/store"
)

// copies is what repair works on: it implements repair.Copies, with Verify of read.Images.
type copies struct {
	*read.Images
	store     *store.Store
	peers     *peer.Set
	encrypted encryptedStore
	pins      *pins
}

// Has implements repair.Copies.
func (m *copies) Has(id image.ID, epoch uint32) (bool, error) {
	f, err := m.store.Open(id, epoch)
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

// Fetch implements repair.Copies. It ends when the other node sends nothing for a while, however long all
// takes.
func (m *copies) Fetch(ctx context.Context, rec *image.Record, from image.Copy) error {
	named := 0
	if slices.Contains(rec.Copies, image.Copy{Node: m.Self, Epoch: from.Epoch}) {
		named = 1
	}
	// The file's name has no shard in it; see encryptedStore.Create.
	switch count, err := m.encrypted.wanted(rec.ID, from.Epoch); {
	case err != nil:
		return err
	case count > named+1: // one is this repair's own pin
		return image.Errorf(image.KindConflict, "another upload with the ID %s has the file of this name", rec.ID)
	}
	size, err := m.peers.CopyBytes(ctx, from.Node, rec.ID, from.Epoch)
	if err != nil {
		return err
	}
	if size > copyBytesMax(rec.Bytes) {
		return image.Errorf(image.KindDamaged, "the copy on node %d has %d bytes for an image of %d", from.Node,
			size, rec.Bytes)
	}
	src, err := m.peers.OpenCopy(ctx, from.Node, rec.ID, from.Epoch, 0, size)
	if err != nil {
		return err
	}
	defer src.Close()
	w, err := m.store.Create(rec.ID, from.Epoch, size)
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := m.Authenticate(ctx, rec, from.Epoch, io.TeeReader(src, w)); err != nil {
		return err
	}
	return w.Commit()
}

// Pin implements repair.Copies.
func (m *copies) Pin(id image.ID, epoch uint32) (release func()) { return m.pins.add(id, epoch) }

// Remove implements repair.Copies.
func (m *copies) Remove(id image.ID, epoch uint32) error { return m.encrypted.Remove(id, epoch) }

// Suspect implements repair.Copies.
func (m *copies) Suspect(ctx context.Context, node image.NodeID, rec *image.Record) error {
	return m.peers.Suspect(ctx, node, rec)
}
