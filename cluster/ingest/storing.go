package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"time"

	"imgcluster/cluster/commit"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
	"imgcluster/cluster/trace"
)

// startStoring stores this node's copy. The caller holds mu.
func (u *upload) startStoring() {
	s := u.s
	file := image.FileID{Image: u.req.ID, Shard: u.shard, Attempt: image.NewAttempt()}
	ctx, stop := context.WithCancelCause(u.ctx)
	u.attempt = &attempt{file, stop}
	cur, err := u.spool.cursor(ctx)
	u.working.Go(func() {
		var c commit.Copy
		if err == nil {
			c, err = u.store(ctx, cur, file)
			cur.Close()
		}
		if err == nil {
			u.failpoint("durable")
		}
		stopped := false
		u.step(func(m commit.Moment) []commit.Action {
			switch stopped = errors.Is(context.Cause(ctx), errStale); {
			case stopped: // a newer attempt may be on its way
				return nil
			case err != nil:
				return u.cannotStore(m, err)
			}
			u.stored = m.Now
			return u.part.Stored(m, c)
		})
		switch {
		case stopped:
			s.collector.discard(file) // it may have become durable meanwhile; nobody was told of it
		case err == nil:
			u.failpoint("told")
		}
	})
}

// cannotStore has the participant know that this node cannot store the upload because of err. A body that is
// not what the client promised ends the upload on all nodes. The caller holds mu.
func (u *upload) cannotStore(m commit.Moment, err error) []commit.Action {
	p := image.AsProblem(err)
	return u.part.CannotStore(m, &p, p.Code == image.KindDigest || p.Code == image.KindConflict)
}

// store encrypts and stores one copy.
func (u *upload) store(ctx context.Context, cur *cursor, file image.FileID) (c commit.Copy, err error) {
	s, req := u.s, u.req
	w, err := s.Store.Create(ctx, req.User, file, req.Size)
	if err != nil {
		return c, err
	}
	defer w.Abort()
	u.failpoint("created")
	check, err := s.Sealer.Check(ctx, req.User, req.ID)
	if err != nil {
		return c, err
	}
	var dst io.Writer = io.MultiWriter(w, check)
	sum := sha256.New() // costs more than encrypting does
	digest := req.WantDigest || req.Digest != nil
	if digest {
		dst = io.MultiWriter(w, check, sum)
	}
	timed := &timedWriter{w: dst}
	written := u.trace.Took(trace.Write)
	_, err = cur.WriteTo(timed)
	u.trace.Add(trace.Seal, timed.took-(u.trace.Took(trace.Write)-written))
	if err != nil {
		return c, err
	}
	c.Check = check.Sum()
	if digest {
		if c.Sealed, err = u.sealDigest(ctx, image.Digest(sum.Sum(nil))); err != nil {
			return c, err
		}
	}
	u.failpoint("encrypted")
	if err := w.Commit(); err != nil {
		return c, err
	}
	c.Copy = image.Copy{Node: s.Node, Attempt: file.Attempt, Key: w.UserKey()}
	return c, nil
}

// timedWriter measures how long its writes take.
type timedWriter struct {
	w    io.Writer
	took time.Duration
}

// Write implements io.Writer.
func (t *timedWriter) Write(p []byte) (int, error) {
	began := time.Now()
	defer func() { t.took += time.Since(began) }()
	return t.w.Write(p)
}

// sealDigest compares the digest of the body with what the client says, and seals it. It is in no error,
// since the log has these.
func (u *upload) sealDigest(ctx context.Context, d image.Digest) (*image.SealedDigest, error) {
	if want := u.req.Digest; want != nil && *want != d {
		return nil, image.Errorf(image.KindDigest, "the body's SHA-256 is not the one that Content-Digest says").
			WithHint("send the image again")
	}
	sealed, err := u.s.Sealer.Seal(ctx, u.req.User, d)
	return &sealed, err
}

// failpoint is failpoint.Here with this node's role in the name: owner or replica.
func (u *upload) failpoint(step string) {
	if failpoint.Enabled {
		role := "replica"
		u.mu.Lock()
		if u.first == u.s.Node {
			role = "owner"
		}
		u.mu.Unlock()
		failpoint.Here("upload/" + role + "/" + step)
	}
}
