// Package read turns an image's name into its bytes: the newest record, then this node's copy or another's,
// also in mid-body when a copy fails. Open returns authenticated plaintext only; OpenEncrypted and OpenCopy
// return a stored file as it is. It lists images too.
package read

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/oserr"
	"imgcluster/cluster/wire"
	"imgcluster/crypto"
)

// Log is the replicated catalog.
type Log interface {
	// Read calls fn with a state of the shard that has all that was committed before the call.
	Read(ctx context.Context, shard uint64, fn func(catalog.Reader) error) error
}

// File is a stored file of this node.
type File interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Store has the stored files of this node.
type Store interface {
	Open(id image.FileID) (File, error)
}

// Keys are the users' keys.
type Keys interface {
	Get(ctx context.Context, user string, id uint32) (crypto.Key, error)
}

// Peers are the other nodes; see package peer.
type Peers interface {
	Up() []image.NodeID
	OpenCopy(
		ctx context.Context, node image.NodeID, f image.FileID, off, n int64,
	) (io.ReadCloser, error)
	CopyBytes(ctx context.Context, node image.NodeID, f image.FileID) (int64, error)
	ListImages(ctx context.Context, node image.NodeID, shards []uint64, user, prefix, after string, limit int,
	) (io.ReadCloser, error)
}

// Options are what Images work with. All fields are needed.
type Options struct {
	Self  image.NodeID
	Log   Log
	Store Store
	Keys  Keys
	Peers Peers
	// ShardOf returns the shard of a name.
	ShardOf func(user, name string) uint64
	// Locate gives every data shard to a node that serves it.
	Locate func() (map[image.NodeID][]uint64, error)
	// Suspect is called with a node whose copy of an image could not be read, and may be bad.
	Suspect func(*image.Record, image.NodeID)
	Timeout time.Duration // of reading a record or a list
	Logger  *zap.Logger
}

// Images reads images. It is safe for concurrent use.
type Images struct{ Options }

// New returns the Images of a node.
func New(o Options) *Images { return &Images{o} }

// Record returns the newest record of a name: a linearizable read.
func (m *Images) Record(ctx context.Context, user, name string) (*image.Record, error) {
	rec, err := m.record(ctx, user, name)
	if err == nil && rec == nil {
		err = NotFound(user, name)
	}
	if err != nil {
		return nil, err
	}
	return m.Reveal(ctx, rec)
}

// record returns the newest record of a name with its digest sealed, nil when there is none.
func (m *Images) record(ctx context.Context, user, name string) (rec *image.Record, err error) {
	ctx, cancel := context.WithTimeout(ctx, m.Timeout)
	defer cancel()
	err = m.Log.Read(ctx, m.ShardOf(user, name), func(r catalog.Reader) (err error) {
		rec, err = catalog.GetRecord(r, user, name)
		return err
	})
	return rec, err
}

// Reveal returns a record with its digest, for one who may read the image.
func (m *Images) Reveal(ctx context.Context, rec *image.Record) (*image.Record, error) {
	if rec.Sealed == nil {
		return rec, nil
	}
	digest, err := m.revealer(ctx, rec.User)(rec)
	if err != nil {
		return nil, err
	}
	revealed := *rec
	revealed.SHA256 = digest
	return &revealed, nil
}

// revealer opens the digest of an image that has one.
type revealer func(*image.Record) (*image.Digest, error)

// revealer returns one for many images of a user.
func (m *Images) revealer(ctx context.Context, user string) revealer {
	sealers := map[uint32]*crypto.DigestSealer{} // by the user's keys
	return func(rec *image.Record) (*image.Digest, error) {
		s := sealers[rec.Check.Key]
		if s == nil {
			key, err := m.Keys.Get(ctx, user, rec.Check.Key)
			if err == nil {
				s, err = crypto.NewDigestSealer(key)
			}
			if err != nil {
				return nil, err
			}
			sealers[rec.Check.Key] = s
		}
		d, err := s.Open(*rec.Sealed)
		if err != nil {
			return nil, image.Errorf(image.KindInternal, "digest of image %q: %w", rec.Name, err)
		}
		return (*image.Digest)(&d), nil
	}
}

// NotFound says that a user has no image of this name.
func NotFound(user, name string) error {
	return image.Errorf(image.KindNotFound, "user %q has no image %q", user, name).
		WithHint("list the user's images with GET /v1/images/{user}")
}

// Open returns an image's plaintext, only what was authenticated.
func (m *Images) Open(ctx context.Context, rec *image.Record) wire.Content {
	return &plaintext{m: m, ctx: ctx, rec: rec, copies: m.order(rec), end: rec.Bytes}
}

// order lists a record's copies, this node's first and those of nodes that are down last.
func (m *Images) order(rec *image.Record) []image.Copy {
	up := m.Peers.Up()
	rank := func(c image.Copy) int {
		switch {
		case c.Node == m.Self:
			return 0
		case slices.Contains(up, c.Node):
			return 1
		}
		return 2
	}
	copies := slices.Clone(rec.Copies)
	slices.SortStableFunc(copies, func(a, b image.Copy) int { return rank(a) - rank(b) })
	return copies
}

// source reads a stored file, here or on another node.
func (m *Images) source(
	ctx context.Context, rec *image.Record, c image.Copy, off, n int64,
) (io.ReadCloser, error) {
	if c.Node != m.Self {
		return m.Peers.OpenCopy(ctx, c.Node, rec.File(c), off, n)
	}
	f, err := m.Store.Open(rec.File(c))
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, off, n), f}, nil
}

// open authenticates the header of a copy and that it is the one the record names.
func (m *Images) open(ctx context.Context, rec *image.Record, c image.Copy) (*crypto.Opened, error) {
	src, err := m.source(ctx, rec, c, 0, crypto.PrefixMaxBytes)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	o, err := crypto.OpenStream(src, func(h *crypto.Header) (crypto.Key, error) {
		return m.Keys.Get(ctx, rec.User, h.UserKey)
	})
	if err != nil {
		return nil, err
	}
	return o, o.Header().Matches(rec.ID, c.Attempt, rec.User, rec.Bytes)
}

// Verify reads this node's copy of an image to its end and authenticates every byte. A copy that is not
// there is KindNotFound, a bad one KindDamaged; any other error says nothing about the copy.
func (m *Images) Verify(ctx context.Context, rec *image.Record, c image.Copy) error {
	f, err := m.Store.Open(rec.File(c))
	if oserr.ClassOf(err) == oserr.Broken {
		return image.Errorf(image.KindDamaged, "file %v: %w", rec.File(c), err)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return m.Authenticate(ctx, io.Discard, rec, c, io.NewSectionReader(f, 0, f.Size()))
}

// Authenticate reads the file of a copy of an image to its end, and writes the plaintext to w, which counts
// only when the error is nil. The error is KindDamaged when the copy is not whole; any other says nothing
// about the copy.
func (m *Images) Authenticate(
	ctx context.Context, w io.Writer, rec *image.Record, c image.Copy, file io.Reader,
) error {
	var check *crypto.Check
	key, err := m.Keys.Get(ctx, rec.User, rec.Check.Key)
	if err == nil {
		check, err = crypto.NewCheck(key, rec.ID)
	}
	if err != nil {
		return err
	}
	var keyErr error
	h, err := crypto.Verify(io.MultiWriter(check, w), contextReader{ctx, file},
		func(h *crypto.Header) (key crypto.Key, err error) {
			key, keyErr = m.Keys.Get(ctx, rec.User, h.UserKey)
			return key, keyErr
		})
	switch {
	case image.KindOf(keyErr) == image.KindForbidden: // the user has keys: there is none that the header names
		return image.Errorf(image.KindDamaged, "file %v: %w", rec.File(c), keyErr)
	case keyErr != nil && !errors.As(keyErr, new(*crypto.Error)): // it was not looked up
		return keyErr
	}
	if err == nil {
		err = h.Matches(rec.ID, c.Attempt, rec.User, rec.Bytes)
	}
	switch {
	case err == nil:
	case errors.As(err, new(*crypto.Error)) || oserr.ClassOf(err) == oserr.Broken:
		return image.Errorf(image.KindDamaged, "file %v: %w", rec.File(c), err)
	default: // it was not read to its end, or not written down: that says nothing about the copy
		return fmt.Errorf("file %v: %w", rec.File(c), err)
	}
	if check.Sum() != rec.Check.MAC {
		return image.Errorf(image.KindDamaged,
			"file %v: its plaintext is not the one of the record", rec.File(c))
	}
	return nil
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
