package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wait"
)

// upload is one upload on this node.
type upload struct {
	req      image.Request
	shard    uint64
	began    time.Time
	spool    *spool
	filling  sync.WaitGroup // Receive is reading the body
	changed  chan struct{}  // capacity 1: state or spool changed
	takeover time.Duration  // see Options
	done     chan struct{}  // closed when the log has decided
	left     chan struct{}  // closed when the sender is gone without an answer
	ctx      context.Context
	cancel   context.CancelCauseFunc

	mu    sync.Mutex
	past  uint32          // epoch in which an earlier attempt failed
	state *catalog.Upload // newest from the log, nil before the assignment
	first image.NodeID    // the owner that it was assigned to first
}

func newUpload(s *Service, req image.Request) *upload {
	u := &upload{
		req: req, shard: s.ShardOf(req.User, req.Name), began: time.Now(), takeover: s.TakeoverTimeout,
		spool:   newSpool(s.arena, req.Size),
		changed: make(chan struct{}, 1), done: make(chan struct{}), left: make(chan struct{}),
	}
	u.ctx, u.cancel = context.WithCancelCause(s.ctx)
	u.filling.Add(1)
	return u
}

func (u *upload) signal() {
	select {
	case u.changed <- struct{}{}:
	default:
	}
}

// join takes what the log said before the upload came here: an attempt that goes on, or one that
// failed, of which it hears no more.
func (u *upload) join(known *catalog.Upload) {
	if known.State == catalog.Failed {
		u.mu.Lock()
		u.past = known.Epoch
		u.mu.Unlock()
		return
	}
	u.update(known)
}

// update takes what the log says, unless something newer is known. What is decided stays: a failed
// upload that is sent again under its ID is another upload here.
func (u *upload) update(state *catalog.Upload) {
	u.mu.Lock()
	defer u.mu.Unlock()
	old := u.state
	if state.Epoch <= u.past || old != nil && (old.Finished() || old.Epoch > state.Epoch) {
		return
	}
	if state.Finished() {
		close(u.done)
	}
	if old == nil {
		u.first = state.Owner
	}
	u.state = state
	u.signal()
}

func (u *upload) latest() *catalog.Upload {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state
}

// failed tells whether this attempt can have no success any more.
func (u *upload) failed() bool {
	state := u.latest()
	return u.spool.failed() != nil || state != nil && state.State == catalog.Failed
}

// receives reports whether the body comes in: not all of it is here, and some came lately.
func (u *upload) receives() bool {
	moved, ended := u.spool.progress()
	return !ended && time.Since(moved) < u.takeover
}

// patience is how much longer an upload may make no progress, here and on the other nodes.
func (s *Service) patience(u *upload) time.Duration {
	moved, _ := u.spool.progress()
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.pending[pendingKey{u.shard, u.req.ID}]; w != nil && w.since.After(moved) {
		moved = w.since
	}
	return s.UploadTimeout - time.Since(moved)
}

// wait returns what the log decided. Where the shard has no leader for QuorumTimeout, as on the small
// side of a partition, it does not wait for the decision, which may still come.
func (s *Service) wait(ctx context.Context, u *upload) (*image.Record, error) {
	timer := time.NewTimer(s.UploadTimeout)
	defer timer.Stop()
	look := time.NewTicker(s.QuorumTimeout / quorumLooks)
	defer look.Stop()
	cause := fmt.Errorf("it timed out after %s without progress (timeouts.upload)", s.UploadTimeout)
	for leaderless := 0; ; {
		select {
		case <-look.C:
			leaderless++
			if s.Log.Leader(u.shard) != 0 {
				leaderless = 0
			}
			if leaderless <= quorumLooks {
				continue
			}
			cause = fmt.Errorf("shard %d has had no leader for %s", u.shard, s.QuorumTimeout)
		case <-u.done:
		case <-ctx.Done():
			cause = context.Cause(ctx)
		case <-u.ctx.Done():
			cause = context.Cause(u.ctx)
		case <-timer.C:
			if more := s.patience(u); more > 0 {
				timer.Reset(more)
				continue
			}
		}
		break
	}
	switch state := u.latest(); {
	case state == nil || !state.Finished():
		return nil, undecided(u.req.ID, cause)
	case state.State == catalog.Failed:
		return nil, state.Problem.Err()
	default:
		return state.Record, nil
	}
}

// quorumLooks is how often wait looks for a leader within QuorumTimeout.
const quorumLooks = 10

func undecided(id image.ID, cause error) error {
	if e := (*image.Error)(nil); errors.As(cause, &e) {
		return e
	}
	return image.Errorf(image.KindNoQuorum, "upload %s is not decided: %w", id, cause).
		WithHint("send it again with the same Idempotency-Key").WithRetry(time.Second)
}

// run plays this node's part in an upload until the log has decided.
func (s *Service) run(u *upload) {
	p := &part{s: s, u: u, sending: map[image.NodeID]context.CancelCauseFunc{}, moving: map[image.NodeID]time.Time{}}
	p.play()
	p.linger()
	u.cancel(errSpoolClosed)
	u.spool.close()
	p.wg.Wait()
	u.filling.Wait()
	s.unregister(u)
}

// lingerMax is how long a relay lets its senders end by themselves once the log has decided, which
// keeps their connections.
const lingerMax = time.Second

func (p *part) linger() {
	timer := time.AfterFunc(lingerMax, func() { p.u.cancel(errSpoolClosed) })
	defer timer.Stop()
	p.senders.Wait()
}

// part is the state of run: what this node has begun to do for an upload.
type part struct {
	s       *Service
	u       *upload
	wg      sync.WaitGroup // all its goroutines but senders
	senders sync.WaitGroup
	asking  bool   // an assignment is being proposed
	cutOff  bool   // the body ended early, before an assignment
	epoch   uint32 // in which it stores or has stored, 0: not yet
	stop    context.CancelCauseFunc
	sending map[image.NodeID]context.CancelCauseFunc // nodes that it has begun to send to
	settled bool
	waiting bool                       // for the storing nodes, with all bytes here
	moving  map[image.NodeID]time.Time // when a storing node was last seen to receive the body
}

func (p *part) play() {
	deadline := time.NewTimer(p.s.UploadTimeout)
	defer deadline.Stop()
	next := time.NewTimer(p.s.assignDelay(p.u))
	defer next.Stop()
	left := p.u.left
	for {
		state := p.u.latest()
		if state != nil {
			p.follow(state)
			if state.Finished() {
				return
			}
		}
		select {
		case <-p.u.changed:
			if p.u.spool.complete() && !p.waiting && p.u.latest() != nil {
				p.waiting = true
				next.Reset(p.s.TakeoverTimeout)
			}
		case <-next.C:
			next.Reset(p.due())
		case <-deadline.C:
			more := p.s.patience(p.u)
			if more <= 0 {
				return
			}
			deadline.Reset(more)
		case <-left:
			left = nil
			if p.u.req.Relayed && p.u.latest() == nil {
				return // nobody assigns it any more
			}
		case <-p.u.ctx.Done():
			return
		}
	}
}

// due acts on what should have happened by now, and returns when to look again.
func (p *part) due() time.Duration {
	s, u := p.s, p.u
	state := u.latest()
	switch {
	case state == nil && u.spool.failed() != nil && !p.cutOff:
		p.cutOff = true // another node decides now; if it asks this one, the part is given up at once
		return 2 * s.AssignTimeout
	case state == nil && u.spool.failed() != nil:
		u.cancel(u.spool.failed()) // nobody was asked to store it, and this node cannot
	case state == nil && !p.asking && !u.req.Relayed: // a relayed one is in the log, on its way here
		p.asking = true
		p.wg.Go(func() {
			if err := s.assign(u); err != nil && u.latest() == nil {
				u.cancel(err)
			}
		})
	case state == nil && u.req.Relayed && time.Since(u.spool.began) > s.QuorumTimeout:
		u.cancel(image.Errorf(image.KindAborted, "upload %s was passed on to node %d, and no node has assigned it", u.req.ID, s.Node).
			WithHint("send it again, without Imgcluster-Relayed"))
	case p.waiting:
		return p.takeOver(state)
	}
	return s.AssignTimeout
}

// follow brings what this node does in line with the log.
func (p *part) follow(state *catalog.Upload) {
	if state.Finished() {
		p.finish(state)
		return
	}
	slot := state.Slot(p.s.Node)
	if p.stop != nil && (slot == nil || slot.Epoch != p.epoch) {
		p.stop(errStale)
		p.stop = nil
	}
	if slot != nil && slot.Epoch != p.epoch && !slot.Stored {
		p.epoch = slot.Epoch
		p.startStoring(slot.Epoch)
	}
	if p.relay() {
		for _, sl := range state.Storing {
			if sl.Node != p.s.Node && !sl.Stored && p.sending[sl.Node] == nil {
				p.startSending(sl.Node)
			}
		}
		// A node that takes nothing holds up the others where not all bytes fit in memory. These have begun by
		// now, for they need the beginning, which that one holds.
		for n, stop := range p.sending {
			if state.Slot(n) == nil {
				stop(errStale)
			}
		}
	}
	if !p.settled {
		p.settled = true
		standby := p.standsBy(state)
		p.u.spool.settle(p.relay() || standby)
		if standby {
			failpoint.Here("upload/standby")
		}
	}
}

// standsBy tells whether this node is the one that holds the bytes for a takeover: the first holder
// that does not store. More than one would cost memory bandwidth for the case that two nodes fail
// during one upload, and then the client sends it again.
func (p *part) standsBy(state *catalog.Upload) bool {
	for _, n := range state.Holders {
		if state.Slot(n) == nil {
			return n == p.s.Node
		}
	}
	return false
}

func (p *part) relay() bool { return len(p.u.req.Broadcast) == 0 }

// finish ends this node's work on a decided upload and deletes its file when the record does not
// name it.
func (p *part) finish(state *catalog.Upload) {
	failpoint.Here("upload/decided")
	if p.stop != nil {
		p.stop(errDecided)
	}
	p.u.spool.settle(false)
	if rec := state.Record; p.epoch != 0 && (rec == nil || !slices.Contains(rec.Copies, image.Copy{Node: p.s.Node, Epoch: p.epoch})) {
		p.wg.Wait()
		p.s.discard(p.u.req.ID, p.epoch)
	}
	if rec := state.Record; rec != nil && rec.Owner == p.s.Node {
		p.s.Owned(p.u.owned(rec))
	}
}

// owned describes an upload that has committed with this node as its owner.
func (u *upload) owned(rec *image.Record) Owned {
	o := Owned{Record: rec, Relayed: u.req.Relayed || len(u.req.Broadcast) == 0, Took: time.Since(u.began)}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.first != rec.Owner {
		o.From = u.first
	}
	return o
}

// Why a node's part in an upload ends before its copy is stored.
var (
	errStale   = errors.New("the upload was given to another node")
	errDecided = errors.New("the upload was decided")
)

func (p *part) startStoring(epoch uint32) {
	ctx, stop := context.WithCancelCause(p.u.ctx)
	p.stop = stop
	cur, err := p.u.spool.cursor(ctx)
	p.wg.Go(func() {
		if err == nil {
			err = p.s.store(ctx, p.u, cur, epoch)
			cur.close()
		}
		if errors.Is(context.Cause(ctx), errStale) {
			p.s.discard(p.u.req.ID, epoch) // it may have become durable meanwhile; no record names it
		}
		if err != nil && ctx.Err() == nil {
			p.s.giveUp(p.u, p.s.Node, err)
		}
	})
}

// store encrypts and stores one copy and tells the log.
func (s *Service) store(ctx context.Context, u *upload, cur *cursor, epoch uint32) error {
	w, err := s.Vault.Create(ctx, u.req.User, u.req.ID, epoch, u.req.Size)
	if err != nil {
		return err
	}
	defer w.Abort()
	s.hit(u, "created")
	sums := newSums(u.req.WantDigest || u.req.Digest != nil)
	if _, err := cur.WriteTo(io.MultiWriter(w, sums)); err != nil {
		return err
	}
	sum := sums.digest()
	if want := u.req.Digest; want != nil && *want != *sum {
		return image.Errorf(image.KindDigest, "the body's SHA-256 is %s, Content-Digest says %s", sum, want).
			WithHint("send the image again")
	}
	s.hit(u, "encrypted")
	if err := w.Commit(); err != nil {
		return err
	}
	s.hit(u, "durable")
	err = s.tellStored(ctx, u, image.Copy{Node: s.Node, Epoch: epoch}, sums)
	s.hit(u, "told")
	return err
}

// hit is a failpoint of a storing node, which has its part in its name.
func (s *Service) hit(u *upload, step string) {
	if failpoint.Enabled {
		part := "replica"
		if u.latest().Owner == s.Node {
			part = "owner"
		}
		failpoint.Here("upload/" + part + "/" + step)
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

func (s *Service) tellStored(ctx context.Context, u *upload, c image.Copy, sums *sums) error {
	stored := &catalog.Stored{ID: u.req.ID, Copies: []image.Copy{c}, Check: sums.check.Sum64(), SHA256: sums.digest()}
	r, err := s.propose(ctx, u, catalog.Command{Stored: stored})
	for image.KindOf(err) == image.KindNoQuorum && wait.For(ctx, watchEvery) { // the file is there: it counts when the quorum is back
		r, err = s.propose(ctx, u, catalog.Command{Stored: stored})
	}
	if err != nil {
		return err
	}
	if image.KindOf(r.Err()) == image.KindStale {
		s.discard(u.req.ID, c.Epoch)
	}
	return nil
}

// startSending streams the bytes of a relayed upload on to a storing node.
func (p *part) startSending(to image.NodeID) {
	s, u := p.s, p.u
	ctx, stop := context.WithCancelCause(u.ctx)
	p.sending[to] = stop
	cur, err := u.spool.cursor(ctx)
	req := u.req
	req.Broadcast, req.Relayed = slices.Clone(u.latest().Holders), true
	p.senders.Go(func() {
		if err == nil {
			failpoint.Here("upload/before-send")
			err = s.Peers.Send(ctx, to, req, cur)
			failpoint.Here("upload/sent")
			cur.close()
		}
		if err != nil && ctx.Err() == nil && !u.latest().Finished() {
			s.giveUp(u, to, err)
		}
	})
}

// giveUp takes a node's part in an upload away from it because of err. A body that is not what the
// client promised ends the upload on all nodes.
//
// When several nodes give up at once the log takes one of them, and the others, whose epoch is past
// then, decide again from what that left.
func (s *Service) giveUp(u *upload, node image.NodeID, err error) {
	kind := image.KindOf(err)
	all := kind == image.KindDigest || kind == image.KindConflict
	s.Logger.Warn("upload gives up a node", zap.Stringer("upload", u.req.ID), zap.Uint32("of_node", uint32(node)), zap.Error(err))
	epoch := uint32(0) // of the part that is given up
	for range giveUpTries {
		state := u.latest()
		slot := state.Slot(node)
		if state.Finished() || !all && (slot == nil || slot.Stored || epoch != 0 && slot.Epoch != epoch) {
			return
		}
		drop := []image.NodeID{node}
		if all {
			drop = state.Holders
		}
		if slot != nil {
			epoch = slot.Epoch
		}
		if !s.reassign(u.ctx, u.shard, state, drop, err) {
			return
		}
	}
}

// giveUpTries bounds how often a node tries to give up its part while others do too.
const giveUpTries = 8

// replay answers an upload whose ID is on its way here or was decided: it reads the body and compares.
func (s *Service) replay(ctx context.Context, req image.Request, body io.Reader) (*image.Record, error) {
	sums := newSums(false)
	if n, err := io.Copy(sums, io.LimitReader(body, req.Size)); err != nil || n < req.Size {
		return nil, incomplete(n, req.Size, errors.Join(err, io.ErrUnexpectedEOF))
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
	case state == nil || state.State != catalog.Committed:
		return nil, undecided(req.ID, errors.New("the first attempt failed"))
	case state.Record.User != req.User || state.Record.Name != req.Name || state.Record.Check != sums.check.Sum64():
		return nil, image.Errorf(image.KindConflict, "upload ID %s was used for other bytes or another name", req.ID).
			WithHint("send each image under a fresh Idempotency-Key")
	}
	return state.Record, nil
}
