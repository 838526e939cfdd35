package cluster

import (
	"context"

	"imgcluster/cluster/image"
	"imgcluster/cluster/ingest"
	"imgcluster/cluster/store"
	"imgcluster/crypto"
)

// vault encrypts copies into the store: it implements ingest.Vault.
type vault struct {
	keys  *keyring
	store *store.Store
}

// Create implements ingest.Vault.
func (v vault) Create(ctx context.Context, user string, id image.ID, epoch uint32, size int64) (ingest.CopyWriter, error) {
	key, err := v.keys.current(ctx, user)
	if err != nil {
		return nil, err
	}
	file, err := v.store.Create(id, epoch, crypto.CiphertextLen(size, crypto.HeaderLen(user)))
	if err != nil {
		return nil, err
	}
	enc, err := crypto.NewEncryptWriter(file, key.Key, crypto.HeaderFields{
		Image: id, Tenant: user, Epoch: epoch, UserKey: key.ID, Length: size, SegmentSize: crypto.SegmentSizeDefault,
	})
	if err != nil {
		file.Abort()
		return nil, err
	}
	return &copyWriter{EncryptWriter: enc, file: file}, nil
}

// Remove implements ingest.Vault.
func (v vault) Remove(id image.ID, epoch uint32) error { return v.store.Remove(id, epoch) }

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
