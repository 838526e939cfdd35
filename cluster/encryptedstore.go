package cluster

import (
	"context"

	"imgcluster/cluster/image"
	"imgcluster/cluster/ingest"
	"imgcluster/cluster/store"
	"imgcluster/crypto"
)

// segmentBytes is the size of a file's segments: small enough to stay in a core's cache between its
// copy, its encryption and its way to the disk.
const segmentBytes = 128 << 10

// encryptedStore encrypts copies on their way to the store: it implements ingest.Store.
type encryptedStore struct {
	keys  *keyring
	store *store.Store
	// wanted counts the shards that have a use for a file of this node.
	wanted func(id image.ID, epoch uint32) (int, error)
	// degraded is why the node stores nothing for now.
	degraded func() error
}

// Create implements ingest.Store. A file is named by upload ID and epoch alone, and a client may have
// used one ID for two names, whose shards know nothing of each other: the second would overwrite
// the first one's file. Of two shards that both want it, each upload that is not stored yet is refused.
func (v encryptedStore) Create(
	ctx context.Context, user string, id image.ID, epoch uint32, size int64,
) (ingest.CopyWriter, error) {
	if err := v.degraded(); err != nil {
		return nil, err
	}
	count, err := v.wanted(id, epoch)
	if err != nil {
		return nil, err
	}
	if count > 1 {
		return nil, image.Errorf(image.KindConflict, "upload ID %s was used for other bytes or another name", id).
			WithHint("send each image under a fresh Idempotency-Key")
	}
	key, err := v.keys.current(ctx, user)
	if err != nil {
		return nil, err
	}
	fields := crypto.HeaderFields{
		Image:       id,
		Tenant:      user,
		Epoch:       epoch,
		UserKey:     firstKeyID,
		Length:      size,
		SegmentSize: segmentBytes,
	}
	file, err := v.store.Create(id, epoch, (&crypto.Header{HeaderFields: fields}).FileLen())
	if err != nil {
		return nil, err
	}
	enc, err := crypto.NewEncryptWriter(file, key, fields)
	if err != nil {
		file.Abort()
		return nil, err
	}
	return &copyWriter{EncryptWriter: enc, file: file}, nil
}

// Remove implements ingest.Store. What another shard wants stays, see Create.
func (v encryptedStore) Remove(id image.ID, epoch uint32) error {
	if count, err := v.wanted(id, epoch); count > 0 || err != nil {
		return err
	}
	return v.store.Remove(id, epoch)
}

// copyWriter takes plaintext; its file gets ciphertext.
type copyWriter struct {
	*crypto.EncryptWriter
	file *store.Writer
}

// Commit implements ingest.CopyWriter.
func (w *copyWriter) Commit() error {
	if err := w.EncryptWriter.Close(); err != nil {
		return err
	}
	return w.file.Commit()
}

// Abort implements ingest.CopyWriter.
func (w *copyWriter) Abort() {
	w.EncryptWriter.Close() // gives its buffer back; fails when it was not finished
	w.file.Abort()
}
