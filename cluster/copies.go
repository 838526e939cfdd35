package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"

	"imgcluster/cluster/image"
	"imgcluster/cluster/oserr"
	"imgcluster/crypto"
)

// copies is what repair works on: it implements repair.Copies.
type copies struct {
	*images
	vault vault
	kept  *kept
}

// Verify implements repair.Copies.
func (m *copies) Verify(ctx context.Context, rec *image.Record, epoch uint32) error {
	f, err := m.store.Open(rec.ID, epoch)
	if oserr.ClassOf(err) == oserr.Broken {
		return image.Errorf(image.KindDamaged, "copy of epoch %d: %w", epoch, err)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return m.authenticate(ctx, rec, epoch, io.NewSectionReader(f, 0, f.Size()))
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

// authenticate reads a copy of an image to its end, and tells whether it is whole.
func (m *copies) authenticate(ctx context.Context, rec *image.Record, epoch uint32, file io.Reader) error {
	sum := xxhash.New()
	var keyErr error
	h, err := crypto.VerifyTo(sum, contextReader{ctx, file}, func(h *crypto.Header) (key crypto.Key, err error) {
		key, keyErr = m.keys.get(ctx, rec.User, h.UserKey)
		return key, keyErr
	})
	if image.KindOf(keyErr) == image.KindNoQuorum {
		return keyErr
	}
	if err == nil {
		err = h.Matches(rec.ID, rec.User, epoch, rec.Bytes)
	}
	switch {
	case err == nil:
	case errors.As(err, new(*crypto.Error)) || oserr.ClassOf(err) == oserr.Broken:
		return image.Errorf(image.KindDamaged, "copy of epoch %d: %w", epoch, err)
	default: // it was not read to its end, or not written down: that says nothing about the copy
		return fmt.Errorf("copy of epoch %d: %w", epoch, err)
	}
	if sum.Sum64() != rec.Check {
		return image.Errorf(image.KindDamaged, "copy of epoch %d: the checksum of its plaintext is not the record's", epoch)
	}
	return nil
}

// copyBytesMax bounds the file of a copy by the length of its plaintext.
func copyBytesMax(plaintext int64) int64 { return 2*plaintext + 1<<20 }

// Fetch implements repair.Copies. It ends when the other node sends nothing for a while, however long all takes.
func (m *copies) Fetch(ctx context.Context, rec *image.Record, from image.Copy) error {
	named := 0
	if slices.Contains(rec.Copies, image.Copy{Node: m.self, Epoch: from.Epoch}) {
		named = 1
	}
	// The file's name has no shard in it; see vault.Create.
	switch count, err := m.vault.wanted(rec.ID, from.Epoch); {
	case err != nil:
		return err
	case count > named+1: // the one is Keep's
		return image.Errorf(image.KindConflict, "another upload with the ID %s has the file of this name", rec.ID)
	}
	size, err := m.peers.CopyBytes(ctx, from.Node, rec.ID, from.Epoch)
	if err != nil {
		return err
	}
	if size > copyBytesMax(rec.Bytes) {
		return image.Errorf(image.KindDamaged, "the copy on node %d has %d bytes for an image of %d", from.Node, size, rec.Bytes)
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
	if err := m.authenticate(ctx, rec, from.Epoch, io.TeeReader(src, w)); err != nil {
		return err
	}
	return w.Commit()
}

// Keep implements repair.Copies.
func (m *copies) Keep(id image.ID, epoch uint32) (release func()) { return m.kept.add(id, epoch) }

// Remove implements repair.Copies.
func (m *copies) Remove(id image.ID, epoch uint32) error { return m.vault.Remove(id, epoch) }

// Suspect implements repair.Copies.
func (m *copies) Suspect(ctx context.Context, node image.NodeID, rec *image.Record) error {
	return m.peers.Suspect(ctx, node, rec)
}

// kept counts the files that are here before the catalog names them. It is safe for concurrent use.
type kept struct {
	mu sync.Mutex
	m  map[keptFile]int
}

type keptFile struct {
	id    image.ID
	epoch uint32
}

func (k *kept) add(id image.ID, epoch uint32) (release func()) {
	f := keptFile{id, epoch}
	k.change(f, +1)
	return sync.OnceFunc(func() { k.change(f, -1) })
}

func (k *kept) change(f keptFile, by int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.m == nil {
		k.m = map[keptFile]int{}
	}
	if k.m[f] += by; k.m[f] == 0 {
		delete(k.m, f)
	}
}

func (k *kept) count(id image.ID, epoch uint32) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.m[keptFile{id, epoch}]
}

// contextReader fails when its context is done.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
