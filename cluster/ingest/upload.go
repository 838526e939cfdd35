package ingest

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/commit"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
	"imgcluster/cluster/trace"
)

// upload is one upload on this node.
type upload struct {
	s       *Service
	req     image.Request
	trace   *trace.Request
	shard   uint64
	began   time.Time
	spool   *spool
	filling sync.WaitGroup // Receive is reading the body
	working sync.WaitGroup // its goroutines but senders
	sending sync.WaitGroup // senders
	done    chan struct{}  // closed when the upload is over on this node
	ctx     context.Context
	cancel  context.CancelCauseFunc

	mu      sync.Mutex
	part    *commit.Participant
	leader  image.NodeID   // whom part has told of the upload
	whole   bool           // part knows that all bytes came
	first   image.NodeID   // the owner that was decided on first
	storing []image.NodeID // the nodes that were decided on last
	moved   time.Time      // when one of these was last seen to receive the body
	end     *commit.Finish // nil before
	closed  bool           // nothing more is begun
	attempt *attempt       // that is being stored, or was
	stored  time.Time      // when that was durable
	senders map[image.NodeID]context.CancelCauseFunc
}

// attempt is one try to store this node's copy.
type attempt struct {
	file image.FileID
	stop context.CancelCauseFunc
}

// Why an upload's goroutines end before their work is done.
var (
	errStale   = errors.New("the upload was given to another node")
	errDecided = errors.New("the upload was decided")
)

func newUpload(s *Service, req image.Request, t *trace.Request) *upload {
	u := &upload{
		s: s, req: req, trace: t, shard: s.ShardOf(req.User, req.Name), began: time.Now(),
		spool:   newSpool(s.arena, s.pieces, req.Size),
		done:    make(chan struct{}),
		senders: map[image.NodeID]context.CancelCauseFunc{},
	}
	u.spool.relayed = req.Relayed
	u.part = commit.NewParticipant(s.Node, rand.Uint64(), u.shard, req, s.times())
	u.ctx, u.cancel = context.WithCancelCause(trace.With(s.ctx, t))
	u.filling.Add(1)
	return u
}

// step has the participant take an event, and does what it wants done.
func (u *upload) step(event func(commit.Moment) []commit.Action) {
	// Before the upload's state is looked at: what the log says after that is not acted on yet.
	m := u.s.agreement.moment(u.shard)
	u.mu.Lock()
	defer u.mu.Unlock()
	m.Now = time.Now()
	for _, a := range event(m) {
		u.do(a)
	}
}

// do does one thing that the participant wants done. The caller holds mu.
func (u *upload) do(action commit.Action) {
	s := u.s
	switch a := action.(type) {
	case commit.Send:
		if a.To == s.Node {
			s.agreement.post(func() { s.agreement.heard(s.Node, u.shard, a.Report) })
			return
		}
		s.agreement.send(a.To, Message{Shard: u.shard, Report: &a.Report}, a.Again)
	case commit.Store:
		if !u.closed {
			u.startStoring()
		}
	case commit.StopStoring:
		u.attempt.stop(errStale)
	case commit.DeleteCopy:
		file := u.attempt.file
		s.collector.later(func() { s.collector.discard(file) })
	case commit.Pass:
		if !u.closed {
			u.startPassing(a)
		}
	case commit.Propose:
		s.wg.Start(func() {
			ctx, cancel := context.WithTimeout(s.ctx, s.UploadTimeout)
			defer cancel()
			if _, err := s.Log.Propose(ctx, u.shard, a.Command); err != nil {
				s.Logger.Warn("a copy is not taken back yet", zap.Stringer("upload", a.ID), u.trace.Field(),
					zap.Error(err))
			}
		})
	case commit.Finish:
		failpoint.Here("upload/decided")
		u.end = &a
		s.placer.landed(u.req.ID)
		close(u.done)
	}
}

// decide takes a decision of the coordinator on a node.
func (u *upload) decide(from image.NodeID, d commit.Decision) {
	u.step(func(m commit.Moment) []commit.Action {
		for _, a := range u.part.Decide(m, from, d) {
			u.do(a) // now: who stores has the first bytes before they are released
		}
		if from == m.Leader && u.part.Follows(d) && u.end == nil && !u.closed {
			u.s.placer.heard(u.shard, d)
			u.followDecision(d)
		}
		return nil
	})
}

// giveUp ends the upload here because of err.
func (u *upload) giveUp(err error) {
	p := image.AsProblem(err)
	u.step(func(m commit.Moment) []commit.Action { return u.part.GiveUp(m, &p) })
}

// followDecision keeps or releases the bytes, and sends them to whom they are to go. The caller holds mu.
func (u *upload) followDecision(d commit.Decision) {
	u.storing = d.Storing
	if u.first == 0 && len(d.Storing) > 0 {
		u.first = d.Storing[0]
	}
	if u.relays() {
		u.followSenders(d) // first: they need the first bytes
	}
	u.dropSenders(d)
	if u.req.Relayed && !slices.Contains(d.Storing, u.s.Node) {
		return // the relay knows of a newer decision, or stops sending soon: the first bytes may be needed
	}
	standby := d.Standby == u.s.Node
	u.spool.retain(u.relays() || standby)
	if standby {
		failpoint.Here("upload/standby")
	}
}

// relays reports whether this node sends the upload on to others: its client sent it to this one alone.
func (u *upload) relays() bool { return len(u.req.Broadcast) == 0 }

// outcome returns what became of the upload, nil before that is known.
func (u *upload) outcome() *commit.Finish {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.end
}

// failed reports whether this upload can have no success any more.
func (u *upload) failed() bool {
	end := u.outcome()
	return u.spool.failed() != nil || end != nil && (end.Upload == nil || end.Upload.State == catalog.Failed)
}

// receives reports whether the body comes in: not all of it is here, and some came lately.
func (u *upload) receives() bool {
	moved, ended := u.spool.progress()
	return !ended && time.Since(moved) < u.s.TakeoverTimeout
}

// idle returns for how long the upload has made no progress, here and on the nodes that store it.
func (u *upload) idle() time.Duration {
	moved, _ := u.spool.progress()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.moved.After(moved) {
		moved = u.moved
	}
	return time.Since(moved)
}

// owned describes an upload that has committed with this node as its owner.
func (u *upload) owned(rec *image.Record) Owned {
	o := Owned{
		Record: rec, Trace: u.trace, Announced: u.req.Announced, Took: time.Since(u.began),
		Relayed: !u.req.Announced && (u.req.Relayed || u.relays()),
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.first != rec.Owner {
		o.From = u.first
	}
	return o
}

// tick looks over an upload.
func (s *Service) tick(u *upload) {
	complete := u.spool.complete()
	u.step(func(m commit.Moment) (actions []commit.Action) {
		if complete && !u.whole {
			u.whole = true
			u.part.Whole(m)
		}
		if m.Leader != u.leader {
			u.leader = m.Leader
			actions = append(actions, u.part.Led(m)...)
		}
		isReceiving := func(n image.NodeID) bool { return n != s.Node && s.ReceivedBy(n, u.req.ID) }
		if slices.ContainsFunc(u.storing, isReceiving) {
			u.moved = m.Now
		}
		return append(actions, u.part.Tick(m)...)
	})
	if u.idle() > 2*s.UploadTimeout {
		u.giveUp(image.Errorf(image.KindAborted, "no progress for %s (timeouts.upload)", s.UploadTimeout))
	}
}

// lingerMax is how long a relay waits for its senders to finish once all is decided: a sender that is
// cancelled loses its connection.
const lingerMax = time.Second

// run does this node's work on an upload until it is over here.
func (s *Service) run(u *upload) {
	u.step(func(m commit.Moment) []commit.Action {
		u.leader = m.Leader
		return u.part.Begin(m)
	})
	if e, ok := s.agreement.takeEarly(u.shard, u.req.ID); ok {
		u.decide(e.from, e.d)
	}
	select {
	case <-u.done:
	case <-u.ctx.Done():
	}
	u.spool.retain(false)
	if end := u.outcome(); end != nil && end.Upload != nil && end.Upload.Record != nil &&
		end.Upload.Record.Owner == s.Node {
		s.Owned(u.owned(end.Upload.Record))
	}
	u.close()
}

// close ends what goes on for an upload that is over here, and gives its memory back.
func (u *upload) close() {
	u.mu.Lock()
	u.closed = true
	u.mu.Unlock()
	timer := time.AfterFunc(lingerMax, func() { u.cancel(errSpoolClosed) })
	u.sending.Wait()
	timer.Stop()
	u.cancel(errDecided)
	u.spool.close()
	u.working.Wait()
	u.filling.Wait()
	u.s.unregister(u)
}
