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

// startStoring stores this node's copy in an epoch, and gives the part up when that fails.
func (p *part) startStoring(epoch uint32) {
	ctx, stop := context.WithCancelCause(p.u.ctx)
	p.stop = stop
	cur, err := p.u.spool.cursor(ctx)
	p.wg.Go(func() {
		if err == nil {
			err = p.store(ctx, cur, epoch)
			cur.close()
		}
		if errors.Is(context.Cause(ctx), errStale) {
			// it may have become durable meanwhile; no record names it
			p.s.collector.discard(p.u.req.ID, epoch)
		}
		if err != nil && ctx.Err() == nil {
			p.giveUp(p.s.Node, err)
		}
	})
}

// store encrypts and stores one copy and reports it to the log.
func (p *part) store(ctx context.Context, cur *cursor, epoch uint32) error {
	req := p.u.req
	w, err := p.s.Vault.Create(ctx, req.User, req.ID, epoch, req.Size)
	if err != nil {
		return err
	}
	defer w.Abort()
	p.hit("created")
	sums := newSums(req.WantDigest || req.Digest != nil)
	if _, err := cur.WriteTo(io.MultiWriter(w, sums)); err != nil {
		return err
	}
	sum := sums.digest()
	if want := req.Digest; want != nil && *want != *sum {
		return image.Errorf(image.KindDigest, "the body's SHA-256 is %s, Content-Digest says %s", sum, want).
			WithHint("send the image again")
	}
	p.hit("encrypted")
	if err := w.Commit(); err != nil {
		return err
	}
	p.hit("durable")
	err = p.reportStored(ctx, image.Copy{Node: p.s.Node, Epoch: epoch}, sums)
	p.hit("told")
	return err
}

// reportStored proposes that this node has stored a copy. The file is durable: without a quorum it
// counts when the quorum is back.
func (p *part) reportStored(ctx context.Context, c image.Copy, sums *sums) error {
	stored := catalog.Command{Stored: &catalog.Stored{
		ID: p.u.req.ID, Copies: []image.Copy{c}, Checksum: sums.check.Sum64(), SHA256: sums.digest(),
	}}
	r, err := p.propose(ctx, stored)
	for image.KindOf(err) == image.KindNoQuorum && wait.For(ctx, watchEvery) {
		r, err = p.propose(ctx, stored)
	}
	if err != nil {
		return err
	}
	if image.KindOf(r.Err()) == image.KindStale {
		p.s.collector.discard(p.u.req.ID, c.Epoch)
	}
	return nil
}

// hit is a failpoint of a storing node, which has its part in its name.
func (p *part) hit(step string) {
	if failpoint.Enabled {
		role := "replica"
		if p.u.latest().Owner == p.s.Node {
			role = "owner"
		}
		failpoint.Here("upload/" + role + "/" + step)
	}
}

// sums are what is computed of the plaintext on its way: always the check by which copies are
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
