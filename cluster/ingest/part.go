package ingest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
)

// part is this node's part in an upload: what it has begun to do for it.
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

// Why a node's part in an upload ends before its copy is stored.
var (
	errStale   = errors.New("the upload was given to another node")
	errDecided = errors.New("the upload was decided")
)

// run plays this node's part in an upload until the log has decided.
func (s *Service) run(u *upload) {
	p := &part{
		s: s, u: u,
		sending: map[image.NodeID]context.CancelCauseFunc{},
		moving:  map[image.NodeID]time.Time{},
	}
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

func (p *part) play() {
	deadline := time.NewTimer(p.s.UploadTimeout)
	defer deadline.Stop()
	next := time.NewTimer(p.s.placer.delay(p.u.shard, p.u.req.Broadcast))
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
			if err := p.assign(); err != nil && u.latest() == nil {
				u.cancel(err)
			}
		})
	case state == nil && u.req.Relayed && time.Since(u.spool.began) > s.QuorumTimeout:
		u.cancel(image.Errorf(image.KindAborted,
			"upload %s was passed on to node %d, and no node has assigned it", u.req.ID, s.Node).
			WithHint("send it again, without Imgcluster-Relayed"))
	case p.waiting:
		return p.takeOver(state)
	}
	return s.AssignTimeout
}

// assign decides which nodes store the upload and proposes that. What the log says reaches u.
func (p *part) assign() error {
	a, err := p.s.placer.decide(p.u.shard, p.u.req)
	if err != nil {
		return err
	}
	defer p.s.placer.release(a.ID)
	failpoint.Here("upload/before-assign")
	r, err := p.propose(p.u.ctx, catalog.Command{Assign: a})
	if err != nil {
		return err
	}
	failpoint.Here("upload/assigned")
	return r.Err()
}

// propose puts a command about the upload into the log; u takes over what the log then says of it.
func (p *part) propose(ctx context.Context, c catalog.Command) (catalog.Result, error) {
	r, err := p.s.Log.Propose(ctx, p.u.shard, c)
	if err == nil && r.Upload != nil {
		p.u.update(r.Upload)
	}
	return r, err
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
	if p.relays() {
		p.followSenders(state)
	}
	if !p.settled {
		p.settled = true
		standby := p.standsBy(state)
		p.u.spool.settle(p.relays() || standby)
		if standby {
			failpoint.Here("upload/standby")
		}
	}
}

// followSenders sends a relayed upload to the nodes that store it, and to no other.
func (p *part) followSenders(state *catalog.Upload) {
	for _, slot := range state.Storing {
		if slot.Node != p.s.Node && !slot.Stored && p.sending[slot.Node] == nil {
			p.startSending(slot.Node)
		}
	}
	// A node that takes nothing holds up the others where not all bytes fit in memory. These have begun by
	// now, for they need the beginning, which that one holds.
	for node, stop := range p.sending {
		if state.Slot(node) == nil {
			stop(errStale)
		}
	}
}

// standsBy reports whether this node is the one that holds the bytes for a takeover: the first holder
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

// relays reports whether this node sends the upload on to others: its client sent it to this one alone.
func (p *part) relays() bool { return len(p.u.req.Broadcast) == 0 }

// finish ends this node's work on a decided upload and deletes its file when the record does not
// name it.
func (p *part) finish(state *catalog.Upload) {
	failpoint.Here("upload/decided")
	if p.stop != nil {
		p.stop(errDecided)
	}
	p.u.spool.settle(false)
	rec := state.Record
	own := image.Copy{Node: p.s.Node, Epoch: p.epoch}
	if p.epoch != 0 && (rec == nil || !slices.Contains(rec.Copies, own)) {
		p.wg.Wait()
		p.s.collector.discard(p.u.req.ID, p.epoch)
	}
	if rec != nil && rec.Owner == p.s.Node {
		p.s.Owned(p.u.owned(rec))
	}
}

// startSending streams the bytes of a relayed upload on to a storing node.
func (p *part) startSending(to image.NodeID) {
	s, u := p.s, p.u
	ctx, stop := context.WithCancelCause(u.ctx)
	p.sending[to] = stop
	cur, err := u.spool.cursor(ctx)
	req := u.req
	req.Broadcast = slices.Clone(u.latest().Holders)
	req.Relayed = true
	p.senders.Go(func() {
		if err == nil {
			failpoint.Here("upload/before-send")
			err = s.Peers.Send(ctx, to, req, cur)
			failpoint.Here("upload/sent")
			cur.close()
		}
		if err != nil && ctx.Err() == nil && !u.latest().Finished() {
			p.giveUp(to, err)
		}
	})
}
