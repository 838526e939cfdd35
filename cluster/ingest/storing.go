package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"

	"github.com/cespare/xxhash/v2"

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
	sums := newSums(req.WantDigest || req.Digest != nil)
	if _, err := cur.WriteTo(io.MultiWriter(w, sums)); err != nil {
		return err
	}
	sum := sums.digest()
	if want := req.Digest; want != nil && *want != *sum {
		return image.Errorf(image.KindDigest, "the body's SHA-256 is %s, Content-Digest says %s", sum, want).
			WithHint("send the image again")
	}
	t.failpoint("encrypted")
	if err := w.Commit(); err != nil {
		return err
	}
	t.failpoint("durable")
	err = t.reportStored(ctx, epoch, file, sums)
	t.failpoint("told")
	return err
}

// reportStored proposes that this node has stored a copy. The file is durable: without a quorum it
// counts when the quorum is back.
func (t *task) reportStored(ctx context.Context, epoch uint32, file image.FileID, sums *sums) error {
	c := catalog.StoredCopy{Copy: image.Copy{Node: t.s.Node, Attempt: file.Attempt}, Epoch: epoch}
	stored := catalog.Command{Stored: &catalog.Stored{
		ID: t.u.req.ID, Copies: []catalog.StoredCopy{c}, Checksum: sums.check.Sum64(), SHA256: sums.digest(),
	}}
	r, err := t.propose(ctx, stored)
	for image.KindOf(err) == image.KindNoQuorum && wait.For(ctx, watchEvery) {
		r, err = t.propose(ctx, stored)
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

// sums are what is computed of the plaintext while it passes: always the check by which copies are
// compared, and on request the SHA-256, which costs as much as encrypting and writing together.
type sums struct {
	check  *xxhash.Digest
	sha256 hash.Hash // nil: not wanted
}

func newSums(sha bool) *sums {
	s := &sums{check: xxhash.New()}
	if sha {
		s.sha256 = sha256.New()
	}
	return s
}

// Write implements io.Writer.
func (s *sums) Write(p []byte) (int, error) {
	s.check.Write(p)
	if s.sha256 != nil {
		s.sha256.Write(p)
	}
	return len(p), nil
}

// digest returns the SHA-256, nil when it was not wanted.
func (s *sums) digest() *image.Digest {
	if s.sha256 == nil {
		return nil
	}
	return (*image.Digest)(s.sha256.Sum(nil))
}
