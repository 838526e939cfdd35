// Package peer knows the other nodes: who is up, what their last status was, and how to call them. Answers
// come from memory, so no upload waits for one: each peer streams its status until its process ends.
package peer

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/image"
	"imgcluster/cluster/peerconn"
	"imgcluster/cluster/wait"
	"imgcluster/cluster/wire"
)

// Options are what a Set works with. All fields are needed.
type Options struct {
	Self    image.NodeID
	Every   time.Duration // twice the pause before a peer that is down is called again
	Silence time.Duration // without figures for this long, a peer is down
	Stall   time.Duration // without a byte for this long, another copy is read
	Dialer  peerconn.Dialer
	Logger  *zap.Logger
	// Changed is called when a peer goes up or down, or takes on work or images or no longer does.
	Changed func()
	// Works reports whether this node takes on work; Full, whether it has no room for more images.
	Works, Full func() bool
	// Message gets what a peer has to say to this node. It does not block.
	Message func(from image.NodeID, message []byte)
}

// Set is the other nodes of the cluster, as this one sees them. It is safe for concurrent use.
type Set struct {
	o    Options
	http *http.Client
	send *http.Client // uploads

	mu       sync.Mutex
	addr     map[image.NodeID]Addresses // of the others
	state    map[image.NodeID]peerState
	watching context.Context // of Watch; nil before
	ends     map[image.NodeID]context.CancelFunc
	mail     map[image.NodeID]chan []byte // to those that read this node's status stream
	wg       sync.WaitGroup
}

// Addresses are where a node listens, host:port: for clients, and for the other nodes.
type Addresses struct{ API, Raft string }

type peerState struct {
	up     bool
	since  time.Time       // it is up or down
	status wire.NodeStatus // the last heard
}

func (p peerState) draining() bool { return p.status.State == wire.NodeDraining }
func (p peerState) live() bool     { return p.up && !p.draining() && p.status.Problem == "" }
func (p peerState) room() bool     { return p.live() && !p.status.DiskFull }

// New returns a Set without peers; Update it, Watch it, and Close it.
func New(o Options) *Set {
	s := &Set{
		o:     o,
		addr:  map[image.NodeID]Addresses{},
		state: map[image.NodeID]peerState{},
		ends:  map[image.NodeID]context.CancelFunc{},
		mail:  map[image.NodeID]chan []byte{},
	}
	s.http = &http.Client{Transport: s.newTransport(0)}
	s.send = &http.Client{Transport: s.newTransport(sendBufferBytes)}
	return s
}

// Close closes the connections that are kept open for further calls. Watch has ended.
func (s *Set) Close() {
	s.http.CloseIdleConnections()
	s.send.CloseIdleConnections()
}

// IDs lists the peers, in order.
func (s *Set) IDs() []image.NodeID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.addr))
}

// Address returns where a peer listens for other nodes, host:port; it is empty when the node is not a peer.
func (s *Set) Address(id image.NodeID) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr[id].Raft
}

// Status returns the last status of a peer, with its state down when it is.
func (s *Set) Status(id image.NodeID) wire.NodeStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.state[id]
	p.status.ID, p.status.API = id, s.addr[id].API
	if !p.up {
		p.status.State, p.status.Ready = wire.NodeDown, false
	}
	return p.status
}

// Update makes the peers those of a cluster with these members, this node among them or not.
func (s *Set) Update(members map[image.NodeID]Addresses) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, addr := range members {
		if id != s.o.Self {
			s.add(id, addr)
		}
	}
	for id := range s.addr {
		if _, ok := members[id]; !ok {
			if s.ends[id] != nil {
				s.ends[id]()
			}
			delete(s.addr, id)
			delete(s.state, id)
			delete(s.ends, id)
		}
	}
}

// add adds a peer, and follows it where the others are followed. The caller holds mu.
func (s *Set) add(id image.NodeID, addr Addresses) {
	if s.addr[id] == addr {
		return
	}
	if s.ends[id] != nil {
		s.ends[id]()
	}
	s.addr[id] = addr
	s.state[id] = peerState{since: time.Now()}
	if s.watching != nil && s.watching.Err() == nil {
		s.start(id)
	}
}

// start follows a peer. The caller holds mu.
func (s *Set) start(id image.NodeID) {
	ctx, end := context.WithCancel(s.watching)
	s.ends[id] = end
	s.wg.Go(func() {
		for unknown := false; ctx.Err() == nil; {
			err := s.follow(ctx, id)
			if ctx.Err() != nil {
				return
			}
			if dns := (*net.DNSError)(nil); errors.As(err, &dns) && !unknown {
				unknown = true
				s.o.Logger.Warn("a peer's host does not resolve here", zap.Uint32("peer", uint32(id)), zap.Error(err),
					zap.String("hint", "start the peer where its name comes with it; "+
						"else add the name to the DNS or to /etc/hosts"))
			}
			s.set(id, func(p *peerState) { p.up = false }, err)
			wait.For(ctx, s.o.Every/2)
		}
	})
}

// Watch keeps a stream of each peer's figures open until ctx ends.
func (s *Set) Watch(ctx context.Context) {
	s.mu.Lock()
	s.watching = ctx
	for id := range s.addr {
		s.start(id)
	}
	s.mu.Unlock()
	<-ctx.Done()
	s.wg.Wait()
}

// Serves lists the shards that an up peer has the newest state of. A peer that runs with another data
// directory than this incarnation serves none.
func (s *Set) Serves(id image.NodeID, incarnation string) []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.state[id]; p.up && p.status.Incarnation == incarnation {
		return p.status.Serves
	}
	return nil
}

// Receives reports whether a peer is up and receives the body of an upload.
func (s *Set) Receives(id image.NodeID, upload image.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.state[id]
	return p.up && slices.Contains(p.status.Receiving, upload)
}

// follow reads one stream to its end.
func (s *Set) follow(ctx context.Context, id image.NodeID) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ticker := time.NewTicker(s.o.Silence / silenceTicks)
	defer ticker.Stop()
	var quiet silence
	go quiet.watch(ctx, ticker.C, cancel)
	resp, err := s.get(ctx, id, wire.StatusPath, "")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for d := json.NewDecoder(resp.Body); ; {
		var line wire.StatusLine
		if err := d.Decode(&line); err != nil {
			return err
		}
		quiet.ticks.Store(0)
		if line.Status != nil {
			off := time.Since(line.Status.Time).Round(time.Millisecond) // by the wall clock
			line.Status.ClockOffS = max(off, -off).Seconds()
			s.set(id, func(p *peerState) { p.up, p.status = true, *line.Status }, nil)
		}
		if line.Message != nil {
			s.o.Message(id, line.Message)
		}
	}
}

// mailMax bounds the messages to one peer that wait; more are lost.
const mailMax = 4096

// Mail sends a message to a peer. It does not block; it loses the message where the peer does not read.
func (s *Set) Mail(to image.NodeID, message []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.mail[to] <- message: // never, where there is no channel
	default:
	}
}

// Messages implements api.Peers: of two streams to one peer the later one gets the messages.
func (s *Set) Messages(to image.NodeID) (messages <-chan []byte, release func()) {
	c := make(chan []byte, mailMax)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mail[to] = c
	return c, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.mail[to] == c {
			delete(s.mail, to)
		}
	}
}

// silence counts the ticks since something was heard. It counts ticks and does not read the clock, so that a
// pause of this process is not taken for the silence of its peers: what they sent meanwhile is still to be
// read, and a leader would take their uploads away from them.
type silence struct{ ticks atomic.Int32 }

// silenceTicks of silence are too many.
const silenceTicks = 5

// watch calls end when it was silent for too long, and returns then or when ctx ends.
func (s *silence) watch(ctx context.Context, tick <-chan time.Time, end func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick:
			if s.ticks.Add(1) >= silenceTicks {
				end()
				return
			}
		}
	}
}

func (s *Set) set(id image.NodeID, change func(*peerState), cause error) {
	s.mu.Lock()
	old, known := s.state[id]
	if !known { // removed meanwhile
		s.mu.Unlock()
		return
	}
	p := old
	change(&p)
	if p.up != old.up {
		p.since = time.Now()
	}
	s.state[id] = p
	s.mu.Unlock()
	switch peer := zap.Uint32("peer", uint32(id)); {
	case p.up == old.up && p.live() == old.live() && p.room() == old.room() &&
		slices.Equal(p.status.Serves, old.status.Serves):
		return
	case p.up == old.up && p.draining() == old.draining():
	case !p.up && p.draining(): // it said so before
		s.o.Logger.Info("peer has stopped", peer)
	case !p.up:
		s.o.Logger.Warn("peer is down", peer, zap.Error(cause))
	case p.status.Problem != "":
		s.o.Logger.Warn("peer stores nothing", peer, zap.String("problem", p.status.Problem))
	case p.status.DiskFull:
		s.o.Logger.Warn("peer has no room for more images", peer, zap.String("lacks", string(p.status.DiskLacks)),
			zap.Int64("free_bytes", p.status.DiskFreeBytes), zap.Int64("free_inodes", p.status.DiskFreeInodes))
	case p.draining():
		s.o.Logger.Info("peer is stopping", peer)
	default:
		s.o.Logger.Info("peer is up", peer)
	}
	s.o.Changed()
}

// Up lists this node and the peers that are up, in order.
func (s *Set) Up() []image.NodeID {
	return s.list(true, func(p peerState) bool { return p.up })
}

// Live lists the nodes that take on work, in order: those that are up, not draining, and whose disks
// have not failed.
func (s *Set) Live() []image.NodeID {
	return s.list(s.o.Works(), peerState.live)
}

// Room lists the nodes that take on more images, in order: the live ones whose disks are not full.
func (s *Set) Room() []image.NodeID {
	return s.list(s.o.Works() && !s.o.Full(), peerState.room)
}

// DownFor lists the peers that have been down for longer than delay, in no order.
func (s *Set) DownFor(delay time.Duration) (ids []image.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, p := range s.state {
		if !p.up && time.Since(p.since) > delay {
			ids = append(ids, id)
		}
	}
	return ids
}

func (s *Set) list(self bool, ok func(peerState) bool) (ids []image.NodeID) {
	if self {
		ids = append(ids, s.o.Self)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, p := range s.state {
		if ok(p) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Reports returns what the leaders of shards tell of them, by the leader.
func (s *Set) Reports() map[image.NodeID][]wire.ShardReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[image.NodeID][]wire.ShardReport{}
	for id, p := range s.state {
		if p.up {
			all[id] = p.status.Leads
		}
	}
	return all
}
