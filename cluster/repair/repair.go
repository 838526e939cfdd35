// Package repair restores the copies of images: it makes missing ones, replaces damaged ones, and scrubs:
// it reads all copies of this node again from time to time to find damage.
//
// Each node repairs its own copies: it fetches the ciphertext from a node that has it, authenticates every
// byte on the way, encrypts it again under a data key of its own, and names the copy in the log once it is
// durable. Nodes that fetch the same image need not know of each other, because the log takes no more copies
// than are wanted. A copy under an older key of its user is made again in the same way, from itself, where
// that is wanted. A copy that the log may yet name is kept until the log has said that it will not.
package repair

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wait"
)

// Log is the replicated catalog; see package ingest.
type Log interface {
	Propose(ctx context.Context, shard uint64, c catalog.Command) (catalog.Result, error)
	View(shard uint64, fn func(catalog.Reader) error) error
}

// Copies are the stored files of this node, and a way to those of others.
type Copies interface {
	// Verify reads this node's copy of an image to its end and authenticates every byte. The error of a
	// missing copy is KindNotFound, of a damaged one KindDamaged; any other says nothing about the copy.
	Verify(ctx context.Context, rec *image.Record, c image.Copy) error
	// Has reports whether this node has a file.
	Has(f image.FileID) (bool, error)
	// Make makes a copy on this node, in the file of the attempt `to` and under the user's current key, from
	// another copy, of this node or another one. When Make returns no error all bytes of that were
	// authenticated, and the copy made is durable.
	Make(ctx context.Context, rec *image.Record, from image.Copy, to image.Attempt) (image.Copy, error)
	// Pin protects a file that the log does not name yet from the sweep.
	Pin(f image.FileID) (release func())
	// Remove deletes a file unless the log names it.
	Remove(f image.FileID) error
	// Suspect asks another node to check its copy of an image.
	Suspect(ctx context.Context, node image.NodeID, rec *image.Record) error
}

// Options are the settings of a Service. All are required.
type Options struct {
	Node   image.NodeID
	Log    Log
	Copies Copies
	Logger *zap.Logger
	// Acted returns the last entry of a shard's log that this node has acted on.
	Acted func(shard uint64) uint64
	// Shards returns the data shards of this node whose state is up to date.
	Shards func() []uint64
	// ShardNodes returns the nodes of a shard.
	ShardNodes func(shard uint64) []image.NodeID
	// Up returns the nodes that answer.
	Up func() []image.NodeID
	// Room returns the nodes that are up and take new images of a shard.
	Room func(shard uint64) []image.NodeID
	// Leaving returns the nodes whose copies must move to others: those that drain, and those that have
	// been down for long.
	Leaving func() []image.NodeID

	Every      time.Duration // between two searches for missing copies
	Rate       int64         // plaintext bytes a second that are fetched, at most
	ScrubEvery time.Duration // between the starts of two scrubs
	ScrubRate  int64         // plaintext bytes a second that a scrub reads, at most
}

// Service repairs the copies of one node.
type Service struct {
	Options
	ctx      context.Context
	stop     context.CancelFunc
	wg       wait.Group
	kick     chan struct{}
	suspects chan suspect
	fetching chan struct{} // capacity 1: one copy at a time
	limiter  limiter       // of fetching

	mu        sync.Mutex
	suspected map[suspectKey]time.Time // when a copy was last suspected

	unknown atomic.Int64 // copies of which it is not known whether the log names them

	complete map[uint64]bool // shards of which this node has every file; only repairLoop uses it

	made, replaced, rewrapped, damaged, bytes, scrubbed, missing atomic.Int64
}

type suspect struct {
	rec  image.Record
	node image.NodeID
}

type suspectKey struct {
	id   image.ID
	node image.NodeID
}

const (
	// suspectsMax is the number of copies that wait to be checked. Others are left to the scrub.
	suspectsMax = 256
	// suspectPause is the time in which a copy is not suspected again: it may be read often, and two nodes
	// with damaged copies suspect each other.
	suspectPause = 5 * time.Second
	// suspectedMax is the number of entries of Service.suspected.
	suspectedMax = 4096
	// batchRecords is the number of records that are read from the catalog at once.
	batchRecords = 256
	// scrubDelayMax is the longest time from the start to the first scrub.
	scrubDelayMax = 10 * time.Minute
	// retryPause is the wait before a command is proposed again whose outcome is unknown.
	retryPause = time.Second
	// proposalsMax bounds how often a Recopy is proposed.
	proposalsMax = 10
	// unknownMax bounds the copies that are kept until it is known whether the log names them.
	unknownMax = 64
)

// New returns a Service. Before Start it only queues suspects. The caller closes it.
func New(o Options) *Service {
	s := &Service{
		Options:   o,
		kick:      make(chan struct{}, 1),
		suspects:  make(chan suspect, suspectsMax),
		fetching:  make(chan struct{}, 1),
		limiter:   limiter{rate: o.Rate},
		suspected: map[suspectKey]time.Time{},
		complete:  map[uint64]bool{},
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// Start begins to repair. The catalog of this node must be up to date.
func (s *Service) Start() {
	s.Kick()
	s.wg.Go(s.repairLoop)
	s.wg.Go(s.scrubLoop)
	s.wg.Go(s.suspectLoop)
}

// Close ends all repairs and waits for them. The next start repairs what is left.
func (s *Service) Close() {
	s.stop()
	s.wg.Close()
}

// Kick starts a search for missing copies at once. It does not block.
func (s *Service) Kick() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Suspect queues a copy that could not be read to be checked, and repaired when it is damaged. It does not
// block.
func (s *Service) Suspect(rec *image.Record, node image.NodeID) {
	if !s.isNewSuspect(suspectKey{rec.ID, node}) {
		return
	}
	select {
	case s.suspects <- suspect{*rec, node}:
	default:
	}
}

// isNewSuspect reports whether a copy was not suspected within suspectPause, and records that it is now.
func (s *Service) isNewSuspect(key suspectKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, known := s.suspected[key]
	if known && time.Since(last) < suspectPause {
		return false
	}
	if len(s.suspected) >= suspectedMax {
		clear(s.suspected)
	}
	s.suspected[key] = time.Now()
	return true
}

func (s *Service) suspectLoop() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case x := <-s.suspects:
			if x.node == s.Node {
				s.check(s.ctx, &x.rec, true)
			} else if err := s.Copies.Suspect(s.ctx, x.node, &x.rec); err != nil {
				s.Logger.Warn("could not ask a peer to check its copy", zap.Uint32("peer", uint32(x.node)),
					zap.Stringer("image", x.rec.ID), zap.Error(err))
			}
		}
	}
}

// makeCopy makes a copy of an image from another node's and names it in the log in place of those in drop. It
// reports whether the image now has this copy. Failures are logged; the next search tries again.
func (s *Service) makeCopy(ctx context.Context, rec *image.Record, drop []image.Copy) bool {
	up := s.Up()
	return s.makeCopyFrom(ctx, rec, drop, slices.DeleteFunc(slices.Clone(rec.Copies), func(c image.Copy) bool {
		return c.Node == s.Node || !slices.Contains(up, c.Node)
	}))
}

// makeCopyFrom is makeCopy from the first of these copies that is good.
func (s *Service) makeCopyFrom(ctx context.Context, rec *image.Record, drop, sources []image.Copy) bool {
	select {
	case s.fetching <- struct{}{}:
		defer func() { <-s.fetching }()
	case <-ctx.Done():
		return false
	}
	if n := s.unknown.Load(); n >= unknownMax {
		s.Logger.Warn("no copy made: it is not known of others whether the log names them",
			zap.Int64("others", n))
		return false
	}
	for _, from := range sources {
		err := s.copyOne(ctx, rec, from, drop)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		s.Logger.Warn("could not make a copy", zap.String("user", rec.User), zap.Stringer("image", rec.ID),
			zap.Uint32("from", uint32(from.Node)), zap.Error(err))
		switch kind := image.KindOf(err); {
		case kind == image.KindDamaged:
			s.Suspect(rec, from.Node)
		case kind == image.KindStale: // the record changed meanwhile: it may need another copy now
			s.Kick()
			return false
		case kind == image.KindDiskFull, errors.Is(err, errUnknown):
			return false
		}
	}
	return false
}

var errUnknown = errors.New("it is not known whether the log names the copy")

func (s *Service) copyOne(
	ctx context.Context, rec *image.Record, from image.Copy, drop []image.Copy,
) error {
	attempt := image.NewAttempt()
	unpin := s.Copies.Pin(rec.File(image.Copy{Attempt: attempt}))
	s.limiter.wait(ctx, rec.Bytes)
	failpoint.Here("repair/before-fetch")
	to, err := s.Copies.Make(ctx, rec, from, attempt)
	if err != nil {
		unpin()
		return err
	}
	failpoint.Here("repair/fetched")
	s.bytes.Add(rec.Bytes)
	r, err := s.proposeCopy(ctx, rec, to, drop)
	if err != nil {
		s.takeBack(rec, to, unpin)
		return fmt.Errorf("%w: %w", errUnknown, err)
	}
	failpoint.Here("repair/recopied")
	unpin()
	if err := r.Err(); err != nil {
		failpoint.Here("repair/before-remove")
		return errors.Join(err, s.Copies.Remove(rec.File(to)))
	}
	s.Logger.Info("made a copy", zap.String("user", rec.User), zap.Stringer("image", rec.ID),
		zap.Uint32("from", uint32(from.Node)), zap.Any("dropped", drop))
	return nil
}

// proposeCopy names a copy in the log, in place of those in drop. When it returns an error, it is not known
// whether the log names the copy. All proposals are as of one entry: once the log has named the copy it may
// drop it again, for which the file is deleted, and an earlier proposal must not name it after that.
func (s *Service) proposeCopy(
	ctx context.Context, rec *image.Record, to image.Copy, drop []image.Copy,
) (catalog.Result, error) {
	cmd := catalog.Command{Recopy: &catalog.Recopy{
		User: rec.User, Name: rec.Name, ID: rec.ID, Drop: drop,
		Add: []catalog.Reported{{Copy: to, Index: s.Acted(rec.Shard)}},
	}}
	for try := 1; ; try++ {
		r, err := s.Log.Propose(ctx, rec.Shard, cmd)
		if err == nil || try == proposalsMax || !s.serves(rec.Shard) || !wait.For(ctx, retryPause) {
			return r, err
		}
	}
}

func (s *Service) serves(shard uint64) bool { return slices.Contains(s.Shards(), shard) }

// takeBack has the log say that no record will name a copy, if none does, and has the file deleted then.
// Until the log has said so the copy stays pinned: a Recopy that comes late would name what is gone. Where
// this node leaves the shard, or ends, the shard is told before it needs nothing of this node any more, or
// before its next process looks at the file.
func (s *Service) takeBack(rec *image.Record, c image.Copy, unpin func()) {
	s.unknown.Add(1)
	s.wg.Start(func() {
		defer s.unknown.Add(-1)
		abort := catalog.Command{Abort: &catalog.Abort{File: rec.File(c), User: rec.User, Created: time.Now()}}
		for {
			r, err := s.Log.Propose(s.ctx, rec.Shard, abort)
			if err == nil {
				err = r.Err()
			}
			switch {
			case err == nil:
				unpin()
				if err := s.Copies.Remove(rec.File(c)); err != nil {
					s.Logger.Warn("copy not deleted; the sweep will try again", zap.Stringer("file", rec.File(c)),
						zap.Error(err))
				}
				return
			case !s.serves(rec.Shard):
				unpin()
				return
			case !wait.For(s.ctx, retryPause):
				return
			}
		}
	})
}

// finding is a copy of this node that is damaged or missing.
type finding struct {
	err      error
	repaired bool
}

// check verifies this node's copy of an image, and replaces a damaged or missing one when fix is set. f is
// nil unless the copy is damaged or missing. ok is false when the copy could not be checked.
func (s *Service) check(ctx context.Context, rec *image.Record, fix bool) (f *finding, ok bool) {
	i := slices.Index(rec.Replicas(), s.Node)
	if i < 0 {
		return nil, true
	}
	c := rec.Copies[i]
	err := s.Copies.Verify(ctx, rec, c)
	if err == nil {
		return nil, true
	}
	about := []zap.Field{
		zap.String("user", rec.User), zap.Stringer("image", rec.ID), zap.Stringer("attempt", c.Attempt),
		zap.Error(err),
	}
	switch kind := image.KindOf(err); {
	case ctx.Err() != nil, kind == image.KindNoQuorum:
		return nil, false
	case kind != image.KindNotFound && kind != image.KindDamaged:
		s.Logger.Warn("could not check a copy", about...)
		return nil, false
	}
	var now *image.Record
	viewErr := s.Log.View(rec.Shard, func(r catalog.Reader) (err error) {
		now, err = catalog.GetRecord(r, rec.User, rec.Name)
		return err
	})
	if viewErr != nil {
		return nil, false
	}
	if now == nil || now.ID != rec.ID || !slices.Contains(now.Copies, c) {
		return nil, true // deleted or replaced meanwhile
	}
	s.damaged.Add(1)
	s.Logger.Error("a copy is damaged or missing", about...)
	f = &finding{err: err}
	if fix && s.makeCopy(ctx, now, []image.Copy{c}) {
		f.repaired = true
		s.replaced.Add(1)
	}
	return f, true
}
