package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wait"
)

// startStoring stores this node's copy in an epoch, and gives its slot up when that fails.
func (t *task) startStoring(epoch uint32) {
	file := image.FileID{Image: t.u.req.ID, Shard: t.u.shard, Attempt: image.NewAttempt()}
	t.epoch, t.file = epoch, file
	ctx, stop := context.WithCancelCause(t.u.ctx)
	t.stop = stop
	cur, err := t.u.spool.cursor(ctx)
	t.wg.Go(func() {
		if err == nil {
			err = t.store(ctx, cur, epoch, file)
			cur.close()
		}
		if errors.Is(context.Cause(ctx), errStale) {
			// it may have become durable meanwhile; no record names it
			t.s.collector.discard(file)
		}
		if err != nil && ctx.Err() == nil {
			t.giveUp(t.s.Node, err)
		}
	})
}

// store encrypts and stores one copy and reports it to the log.
func (t *task) store(ctx context.Context, cur *cursor, epoch uint32, file image.FileID) error {
	req := t.u.req
	w, err := t.s.Store.Create(ctx, req.User, file, req.Size)
	if err != nil {
		return err
	}
	defer w.Abort()
	t.failpoint("created")
	check, err := t.s.Sealer.Check(ctx, req.User, req.ID)
	if err != nil {
		return err
	}
	var dst io.Writer = io.MultiWriter(w, check)
	sum := sha256.New() // costs more than encrypting does
	digest := req.WantDigest || req.Digest != nil
	if digest {
		dst = io.MultiWriter(w, check, sum)
	}
	if _, err := cur.WriteTo(dst); err != nil {
		return err
	}
	stored := &catalog.Stored{ID: req.ID, Check: check.Sum()}
	if digest {
		if stored.Sealed, err = t.sealDigest(ctx, image.Digest(sum.Sum(nil))); err != nil {
			return err
		}
	}
	t.failpoint("encrypted")
	if err := w.Commit(); err != nil {
		return err
	}
	t.failpoint("durable")
	c := image.Copy{Node: t.s.Node, Attempt: file.Attempt, Key: w.UserKey()}
	stored.Copies = []catalog.StoredCopy{{Copy: c, Epoch: epoch}}
	err = t.reportStored(ctx, file, stored)
	t.failpoint("told")
	return err
}

// sealDigest compares the digest of the body with what the client says, and seals it. It is in no error,
// since the log has these.
func (t *task) sealDigest(ctx context.Context, d image.Digest) (*image.SealedDigest, error) {
	if want := t.u.req.Digest; want != nil && *want != d {
		return nil, image.Errorf(image.KindDigest, "the body's SHA-256 is not the one that Content-Digest says").
			WithHint("send the image again")
	}
	sealed, err := t.s.Sealer.Seal(ctx, t.u.req.User, d)
	return &sealed, err
}

// reportStored proposes that this node has stored a copy. The file is durable: without a quorum it
// counts when the quorum is back.
func (t *task) reportStored(ctx context.Context, file image.FileID, stored *catalog.Stored) error {
	cmd := catalog.Command{Stored: stored}
	r, err := t.propose(ctx, cmd)
	for image.KindOf(err) == image.KindNoQuorum && wait.For(ctx, watchEvery) {
		r, err = t.propose(ctx, cmd)
	}
	if err != nil {
		return err
	}
	if image.KindOf(r.Err()) == image.KindStale {
		t.s.collector.discard(file)
	}
	return nil
}

// failpoint is failpoint.Here with this node's role in the name: owner or replica.
func (t *task) failpoint(step string) {
	if failpoint.Enabled {
		role := "replica"
		if t.u.latest().Owner == t.s.Node {
			role = "owner"
		}
		failpoint.Here("upload/" + role + "/" + step)
	}
}
