package cluster

import (
	"context"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/ingest"
	"imgcluster/cluster/store"
	"imgcluster/cluster/trace"
	"imgcluster/crypto"
)

// segmentBytes is the size of a file's segments: small enough to stay in a core's cache between its
// copy, its encryption and its way to the disk.
const segmentBytes = 128 << 10

// encryptedStore encrypts copies on their way to the store: it implements ingest.Store.
type encryptedStore struct {
	*store.Store
	keys *keyring
	// degraded is why the node stores nothing for now.
	degraded func() error
}

// Create implements ingest.Store.
func (v encryptedStore) Create(
	ctx context.Context, user string, f image.FileID, size int64,
) (ingest.CopyWriter, error) {
	if err := v.degraded(); err != nil {
		return nil, err
	}
	return v.create(ctx, user, f, size)
}

// create is Create for a repair, which goes on while the node stores nothing else.
func (v encryptedStore) create(
	ctx context.Context, user string, f image.FileID, size int64,
) (ingest.CopyWriter, error) {
	keyID, key, err := v.keys.currentKey(ctx, user)
	if err != nil {
		return nil, err
	}
	fields := crypto.HeaderFields{
		Image:       f.Image,
		Attempt:     f.Attempt,
		Tenant:      user,
		UserKey:     keyID,
		Length:      size,
		SegmentSize: segmentBytes,
	}
	began := time.Now()
	file, err := v.Store.Create(f, (&crypto.Header{HeaderFields: fields}).FileLen())
	if err != nil {
		return nil, err
	}
	request := trace.From(ctx)
	request.Since(trace.Write, began)
	file.Trace(request)
	enc, err := crypto.NewEncryptWriter(file, key, fields)
	if err != nil {
		file.Abort()
		return nil, err
	}
	return &copyWriter{EncryptWriter: enc, file: file, key: keyID}, nil
}

// copyWriter takes plaintext; its file gets ciphertext.
type copyWriter struct {
	*crypto.EncryptWriter
	file *store.Writer
	key  uint32
}

// UserKey implements ingest.CopyWriter.
func (w *copyWriter) UserKey() uint32 { return w.key }

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
