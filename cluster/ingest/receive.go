package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/commit"
	"imgcluster/cluster/image"
	"imgcluster/cluster/trace"
)

// Receive takes one upload from its header, of which the API has checked all but that the image is not empty,
// to its record. body must be at least req.Size long and fail in bounded time when the sender is gone or too
// slow. The errors are *image.Error.
func (s *Service) Receive(ctx context.Context, req image.Request, body io.Reader) (*image.Record, error) {
	if req.Size == 0 {
		return nil, image.Errorf(image.KindInvalid, "the image is empty").
			WithHint("send the image's bytes as the body")
	}
	u, old, err := s.register(req, trace.From(ctx))
	if err != nil {
		return nil, err
	}
	if u == nil {
		return s.replay(ctx, req, body)
	}
	if old != nil { // its ID is not known to lead to it any more
		old.giveUp(old.spool.failed())
	}
	known, err := s.lookup(u.shard, req.ID)
	done := known != nil && known.Final()
	if err != nil || done {
		u.filling.Done()
		u.close()
	}
	switch {
	case err != nil:
		return nil, err
	case done:
		return s.replay(ctx, req, body)
	}
	s.wg.Go(func() { s.run(u) })
	began := time.Now()
	err = u.spool.fill(body)
	u.filling.Done()
	if err == errSpoolClosed { // all is decided before all came
		err = s.readOn(u, body)
	}
	u.trace.Since(trace.Receive, began)
	if err != nil {
		u.step(func(m commit.Moment) []commit.Action { return u.cannotStore(m, err) })
		return nil, err
	}
	received := time.Now()
	rec, err := s.wait(ctx, u)
	u.mu.Lock()
	defer u.mu.Unlock()
	if received.Before(u.stored) {
		received = u.stored
	}
	u.trace.Since(trace.Log, received)
	return rec, err
}

// readOn reads what comes after an upload was committed, so that the connection stays usable. One that
// failed is answered at once.
func (s *Service) readOn(u *upload, body io.Reader) error {
	if end := u.outcome(); end == nil || end.Upload == nil || end.Upload.State != catalog.Committed {
		return nil
	}
	return u.spool.drain(body)
}

// register makes the upload on this node; nil when its ID is already in progress here. A failed attempt that
// is still being cleaned up does not count: it is old.
func (s *Service) register(req image.Request, t *trace.Request) (u, old *upload, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.draining() && s.uploads[req.ID] == nil {
		return nil, nil, s.shuttingDown()
	}
	if old = s.uploads[req.ID]; old != nil && !old.failed() {
		if old.req.User != req.User || old.req.Name != req.Name || old.req.Size != req.Size {
			return nil, nil, image.Errorf(image.KindConflict,
				"upload ID %s is in progress with other bytes or another name", req.ID).
				WithHint("send each image under a fresh Idempotency-Key")
		}
		return nil, nil, nil
	}
	if s.running >= s.UploadsMax { // each has a part of the arena, and it has no more parts
		return nil, nil, image.Errorf(image.KindOverload,
			"node %d has %d uploads in progress, its limit", s.Node, s.UploadsMax).
			WithHint("send fewer at once").WithRetry(time.Second)
	}
	u = newUpload(s, req, t)
	s.uploads[req.ID] = u
	s.running++
	return u, old, nil
}

func (s *Service) shuttingDown() error {
	return image.Errorf(image.KindNoQuorum, "node %d is shutting down", s.Node).WithHint("send to another node")
}

// unregister ends the local upload and gives its memory back.
func (s *Service) unregister(u *upload) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.uploads[u.req.ID] == u {
		delete(s.uploads, u.req.ID)
		if s.draining() && len(s.uploads) == 0 {
			close(s.idle)
		}
	}
	u.spool.free()
	s.running--
}

// replay answers an upload whose ID is in progress here or was decided: it reads the body and compares.
func (s *Service) replay(ctx context.Context, req image.Request, body io.Reader) (*image.Record, error) {
	check, err := s.Sealer.Check(ctx, req.User, req.ID)
	if err != nil {
		return nil, err
	}
	if n, err := io.Copy(check, io.LimitReader(body, req.Size)); err != nil || n < req.Size {
		return nil, incomplete(req.Relayed, n, req.Size, errors.Join(err, io.ErrUnexpectedEOF))
	}
	s.mu.Lock()
	u := s.uploads[req.ID]
	s.mu.Unlock()
	if u != nil {
		if _, err := s.wait(ctx, u); err != nil {
			return nil, err
		}
	}
	state, err := s.lookup(s.ShardOf(req.User, req.Name), req.ID)
	switch {
	case err != nil:
		return nil, err
	case state == nil:
	case state.User != req.User || state.Name != req.Name ||
		state.State == catalog.Committed && state.Record.Check != check.Sum():
		return nil, catalog.Conflict(req.ID)
	case state.State == catalog.Committed:
		return state.Record, nil
	case state.Refused():
		return nil, state.Problem.Err()
	}
	return nil, undecided(req.ID, errors.New("the first attempt failed"))
}

// wait returns what the log decided.
func (s *Service) wait(ctx context.Context, u *upload) (*image.Record, error) {
	cause := s.decision(ctx, u)
	switch end := u.outcome(); {
	case end == nil:
		return nil, undecided(u.req.ID, cause)
	case end.Upload == nil:
		return nil, end.Problem.Err()
	case end.Upload.State == catalog.Failed:
		return nil, end.Upload.Problem.Err()
	default:
		return end.Upload.Record, nil
	}
}

// leaderChecks is how often decision checks for a leader within QuorumTimeout.
const leaderChecks = 10

// decision waits until the log has decided, and returns why it waits no longer where it has not. Where
// the shard has no leader for QuorumTimeout, as on the small side of a partition, it does not wait for
// the decision, which may still come.
func (s *Service) decision(ctx context.Context, u *upload) (cause error) {
	timer := time.NewTimer(s.UploadTimeout)
	defer timer.Stop()
	ticker := time.NewTicker(s.QuorumTimeout / leaderChecks)
	defer ticker.Stop()
	for leaderless := 0; ; {
		select {
		case <-ticker.C:
			leaderless++
			if s.Log.Leader(u.shard) != 0 {
				leaderless = 0
			}
			if leaderless > leaderChecks {
				return fmt.Errorf("shard %d has had no leader for %s", u.shard, s.QuorumTimeout)
			}
		case <-u.done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-u.ctx.Done():
			return context.Cause(u.ctx)
		case <-timer.C:
			more := s.UploadTimeout - u.idle()
			if more <= 0 {
				return fmt.Errorf("no progress for %s (timeouts.upload)", s.UploadTimeout)
			}
			timer.Reset(more)
		}
	}
}

// undecided is the answer to an upload of which this node cannot say what becomes of it.
func undecided(id image.ID, cause error) error {
	if e := (*image.Error)(nil); errors.As(cause, &e) {
		return e
	}
	return image.Errorf(image.KindNoQuorum, "upload %s is not decided: %w", id, cause).
		WithHint("send it again with the same Idempotency-Key").WithRetry(time.Second)
}
