package cluster

import (
	"context"
	"io"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
	"imgcluster/cluster/ingest"
	"imgcluster/cluster/read"
	"imgcluster/cluster/store"
	"imgcluster/cluster/wire"
)

// images is what clients come for: it implements api.Images.
type images struct {
	*read.Images
	ingest   *ingest.Service
	log      *shardLogs
	accounts *accounts
}

// Record implements api.Images. A removed user has no images any more.
func (m images) Record(ctx context.Context, user, name string) (*image.Record, error) {
	if m.accounts.removed(user) {
		return nil, read.NotFound(user, name)
	}
	return m.Images.Record(ctx, user, name)
}

// List implements api.Images.
func (m images) List(
	ctx context.Context, user, prefix, after string, limit int,
) (wire.List, error) {
	if m.accounts.removed(user) {
		return wire.List{Images: []wire.Info{}}, nil
	}
	return m.Images.List(ctx, user, prefix, after, limit)
}

// Put implements api.Images.
func (m images) Put(ctx context.Context, req image.Request, body io.Reader) (rec *image.Record, err error) {
	if !req.Relayed { // else the node that relays it has done this
		if err := m.accounts.keyring.ensure(ctx, req.User); err != nil {
			return nil, err
		}
	}
	if req.If, err = m.accounts.keyring.sealConditions(ctx, req.User, req.If); err == nil {
		rec, err = m.ingest.Receive(ctx, req, body)
	}
	if err != nil {
		return nil, err
	}
	return m.Reveal(ctx, rec)
}

// Announce implements api.Images. What is certain to be refused is refused before the bytes are sent, by the
// log: an earlier try under the same ID may be on its way, and must not be stored after its client was told
// that it is not.
func (m images) Announce(
	ctx context.Context, req image.Request, without []image.NodeID,
) ([]image.NodeID, error) {
	if !req.If.IsZero() {
		rec, err := m.Record(ctx, req.User, req.Name)
		if image.KindOf(err) == image.KindNotFound {
			rec, err = nil, nil
		}
		own := rec != nil && rec.ID == req.ID // it is the upload that asks again
		if err == nil && !own && req.If.Check(rec) != nil {
			err = m.refuse(ctx, req)
		}
		if err != nil {
			return nil, err
		}
	}
	return m.ingest.Announce(req, without)
}

// refuse ends an upload whose conditions do not hold, and returns the error of that; nil when they have come
// to hold meanwhile.
func (m images) refuse(ctx context.Context, req image.Request) (err error) {
	if req.If, err = m.accounts.keyring.sealConditions(ctx, req.User, req.If); err != nil {
		return err
	}
	_, err = m.log.Do(ctx, m.ShardOf(req.User, req.Name), catalog.Command{End: &catalog.End{
		ID: req.ID, User: req.User, Name: req.Name, If: req.If,
		Created: time.Now().UTC().Truncate(time.Millisecond),
	}})
	return err
}

// Delete implements api.Images. The files go once the log has it.
func (m images) Delete(ctx context.Context, id image.ID, user, name string, cond image.Conditions) error {
	cond, err := m.accounts.keyring.sealConditions(ctx, user, cond)
	if err != nil {
		return err
	}
	failpoint.Here("delete/before-propose")
	_, err = m.log.Do(ctx, m.ShardOf(user, name),
		catalog.Command{Delete: &catalog.Delete{
			ID: id, User: user, Name: name, If: cond, Created: time.Now().UTC().Truncate(time.Millisecond),
		}})
	failpoint.Here("delete/proposed")
	if image.KindOf(err) == image.KindNotFound {
		return read.NotFound(user, name)
	}
	return err
}

// openCopy returns the plaintext of a copy that need not be of a record yet.
func (n *Node) openCopy(ctx context.Context, rec *image.Record) io.ReadCloser {
	return n.images.Open(ctx, rec)
}

// files are this node's stored files as package read opens them.
type files struct{ *store.Store }

// Open implements read.Store.
func (s files) Open(id image.FileID) (read.File, error) {
	f, err := s.Store.Open(id)
	if err != nil {
		return nil, err
	}
	return f, nil
}
