package ingest

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/commit"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
)

// Message is what nodes say to each other about an upload of a shard: a report, or a decision.
type Message struct {
	Shard uint64 `json:"shard"`
	// Route has the node that gets the message pass it on; nil: it is for that one.
	Route    *Route           `json:"route,omitempty"`
	Report   *commit.Report   `json:"report,omitempty"`
	Decision *commit.Decision `json:"decision,omitempty"`
}

// Route is the way of a message that may not get through directly, by another node of the shard.
type Route struct {
	From image.NodeID `json:"from"`
	To   image.NodeID `json:"to"`
}

const (
	// inboxMax bounds the messages of this node to itself that wait; more are lost.
	inboxMax = 4096
	// earlyMax bounds the decisions that are kept for uploads whose header has not come yet.
	earlyMax = 1024
)

// agreement runs the coordinators of the shards that this node leads, and knows what of each shard's log this
// node has acted on.
type agreement struct {
	s     *Service
	inbox chan func()
	kick  chan struct{} // capacity 1

	mu     sync.Mutex
	shards map[uint64]*shardAgreement
	early  map[uploadKey]earlyDecision
	afar   map[image.NodeID]time.Time // when a node was last heard by another one
}

// shardAgreement is what an agreement knows of one shard. No upload is locked by who holds its lock.
type shardAgreement struct {
	mu          sync.Mutex
	acted       atomic.Uint64       // the last entry of its log that this node has acted on
	skipped     uint64              // as of which a snapshot was not looked at yet; 0: none
	coordinator *commit.Coordinator // nil while this node does not lead
}

// uploadKey is an upload of a shard. A client may use an ID in two shards.
type uploadKey struct {
	shard uint64
	id    image.ID
}

// earlyDecision is a decision on an upload whose header has not come to this node.
type earlyDecision struct {
	from image.NodeID
	d    commit.Decision
	at   time.Time
}

func newAgreement(s *Service) *agreement {
	return &agreement{
		s: s, inbox: make(chan func(), inboxMax), kick: make(chan struct{}, 1),
		shards: map[uint64]*shardAgreement{}, early: map[uploadKey]earlyDecision{},
		afar: map[image.NodeID]time.Time{},
	}
}

// of returns what is known of a shard.
func (a *agreement) of(n uint64) *shardAgreement {
	a.mu.Lock()
	defer a.mu.Unlock()
	x := a.shards[n]
	if x == nil {
		x = &shardAgreement{}
		a.shards[n] = x
	}
	return x
}

// shard returns what is known of a shard, locked.
func (a *agreement) shard(n uint64) *shardAgreement {
	x := a.of(n)
	x.mu.Lock()
	return x
}

// moment returns how a participant sees a shard's log, but for the time. While a snapshot is not looked at,
// it sees no leader, and reports nothing.
func (a *agreement) moment(shard uint64) commit.Moment {
	x := a.shard(shard)
	defer x.mu.Unlock()
	if x.skipped > 0 {
		return commit.Moment{Acted: x.acted.Load()}
	}
	return commit.Moment{Acted: x.acted.Load(), Leader: a.s.Log.Leader(shard)}
}

// acted takes note that this node has acted on a shard's log up to the entry index.
func (a *agreement) acted(shard, index uint64) {
	x := a.shard(shard)
	defer x.mu.Unlock()
	x.acted.Store(max(x.acted.Load(), index))
}

// skip takes note that a snapshot as of the entry index is to be looked at.
func (a *agreement) skip(shard, index uint64) {
	x := a.shard(shard)
	defer x.mu.Unlock()
	x.skipped = index
}

// skipped takes note that it was.
func (a *agreement) skipped(shard, index uint64) {
	a.acted(shard, index)
	x := a.shard(shard)
	defer x.mu.Unlock()
	if x.skipped == index {
		x.skipped = 0
	}
}

// forget drops a shard that leaves this node.
func (a *agreement) forget(shard uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.shards, shard)
}

// leads reports whether this node may decide on uploads of a shard.
func (a *agreement) leads(shard uint64) bool {
	return a.s.Log.Leader(shard) == a.s.Node && a.s.Serves(shard)
}

// heard takes a report that has come from a node.
func (a *agreement) heard(from image.NodeID, shard uint64, r commit.Report) {
	if r.Node != from || a.s.ShardOf(r.Request.User, r.Request.Name) != shard || !a.leads(shard) {
		return // it reports again
	}
	a.coordinate(shard, func(c *commit.Coordinator, v commit.View) []commit.Action {
		actions := c.Heard(v, r)
		if r.Gone && !c.Has(r.Request.ID) {
			a.s.placer.landed(r.Request.ID)
		}
		return actions
	})
}

// coordinate has the coordinator of a shard take an event, and does what it wants done.
func (a *agreement) coordinate(shard uint64, event func(*commit.Coordinator, commit.View) []commit.Action) {
	v := a.view(shard)
	x := a.shard(shard)
	defer x.mu.Unlock()
	if x.coordinator == nil {
		x.coordinator = commit.NewCoordinator(a.s.times())
	}
	a.do(shard, event(x.coordinator, v))
}

// view is what the coordinator of a shard sees now.
func (a *agreement) view(shard uint64) commit.View {
	s := a.s
	return commit.View{
		Now: time.Now(),
		Up:  s.Up(),
		Lookup: func(id image.ID) *catalog.Upload {
			u, err := s.lookup(shard, id)
			if err != nil {
				s.Logger.Warn("upload not looked up", zap.Stringer("upload", id), zap.Error(err))
			}
			return u
		},
		Place: func(req image.Request, keep, out []image.NodeID) ([]image.NodeID, int, error) {
			return s.placer.place(shard, req, keep, out)
		},
		Needed:   s.placer.needed(shard),
		Wanted:   s.Replicas,
		Random:   rand.Uint64,
		Receives: func(n image.NodeID, id image.ID) bool { return s.receives(n, shard, id) },
	}
}

// do does what a coordinator wants done. The caller holds the shard's lock.
func (a *agreement) do(shard uint64, actions []commit.Action) {
	for _, action := range actions {
		switch x := action.(type) {
		case commit.Tell:
			if x.Decision.Problem != nil {
				a.s.placer.landed(x.Decision.ID)
			}
			if x.To != a.s.Node {
				a.send(x.To, Message{Shard: shard, Decision: &x.Decision}, a.isAfar(x.To))
				continue
			}
			a.post(func() { a.s.told(a.s.Node, shard, x.Decision) })
		case commit.Propose:
			a.s.wg.Start(func() { a.propose(shard, x) })
		}
	}
}

// send sends a message to a node, and, where that may not be enough, by way of the others of the shard too.
func (a *agreement) send(to image.NodeID, m Message, byOthers bool) {
	a.s.Mail(to, m)
	if !byOthers {
		return
	}
	m.Route = &Route{From: a.s.Node, To: to}
	for _, n := range a.s.ShardNodes(m.Shard) {
		if n != a.s.Node && n != to {
			a.s.Mail(n, m)
		}
	}
}

// heardAfar takes note that a node was heard by another one.
func (a *agreement) heardAfar(n image.NodeID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.afar[n] = time.Now()
}

// isAfar reports whether a node was heard by another one lately.
func (a *agreement) isAfar(n image.NodeID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Since(a.afar[n]) < a.s.TakeoverTimeout
}

// post has this node take a message of its own.
func (a *agreement) post(message func()) {
	select {
	case a.inbox <- message:
	default:
	}
}

// propose proposes what a coordinator wants, and tells it the answer.
func (a *agreement) propose(shard uint64, p commit.Propose) {
	failpoint.Here("upload/before-commit")
	ctx, cancel := context.WithTimeout(a.s.ctx, a.s.UploadTimeout)
	defer cancel()
	r, err := a.s.Log.Propose(ctx, shard, p.Command)
	failpoint.Here("upload/committed")
	a.coordinate(shard, func(c *commit.Coordinator, v commit.View) []commit.Action {
		return c.Proposed(v, p.ID, r, err)
	})
}

// run delivers messages and looks over all uploads until ctx ends.
func (a *agreement) run(ctx context.Context) {
	ticker := time.NewTicker(a.s.times().Report / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case message := <-a.inbox:
			message()
			continue
		case <-ticker.C:
		case <-a.kick:
		}
		a.tick()
	}
}

// tick looks over all uploads.
func (a *agreement) tick() {
	a.mu.Lock()
	shards := slices.Sorted(maps.Keys(a.shards))
	maps.DeleteFunc(a.early, func(_ uploadKey, e earlyDecision) bool {
		return time.Since(e.at) > a.s.TakeoverTimeout
	})
	a.mu.Unlock()
	for _, shard := range shards {
		a.tickShard(shard)
	}
	a.s.placer.expire()
	for _, u := range a.s.all() {
		a.s.tick(u)
	}
}

func (a *agreement) tickShard(shard uint64) {
	leads := a.leads(shard)
	x := a.shard(shard)
	if !leads {
		x.coordinator = nil
	}
	busy := x.coordinator != nil && x.coordinator.Busy()
	x.mu.Unlock()
	if busy {
		a.coordinate(shard, func(c *commit.Coordinator, v commit.View) []commit.Action { return c.Tick(v) })
	}
}

// keepEarly keeps a decision on an upload whose header has not come yet, where it is one that has a part for
// this node. One that has failed is over: what comes after that under its ID is another try.
func (a *agreement) keepEarly(from image.NodeID, shard uint64, d commit.Decision) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := uploadKey{shard, d.ID}
	hasPart := d.Standby == a.s.Node || slices.Contains(d.Storing, a.s.Node)
	switch {
	case d.Problem != nil:
		delete(a.early, key)
	case hasPart && len(a.early) < earlyMax:
		a.early[key] = earlyDecision{from, d, time.Now()}
	}
}

// takeEarly returns the decision that came before its upload, if one has.
func (a *agreement) takeEarly(shard uint64, id image.ID) (e earlyDecision, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := uploadKey{shard, id}
	e, ok = a.early[key]
	delete(a.early, key)
	return e, ok
}

// ended takes what the log says of an upload.
func (a *agreement) ended(shard uint64, u *catalog.Upload) {
	x := a.shard(shard)
	defer x.mu.Unlock()
	if x.coordinator != nil {
		x.coordinator.Ended(u)
	}
}
