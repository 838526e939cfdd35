package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/halfopen"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wait"
	"imgcluster/cluster/wire"
)

// answerBytesMax bounds what a peer answers, but for images.
const answerBytesMax = 256 << 10

// peers knows the other nodes: who is up, what they say of themselves, and how to reach them. Each
// is known alive by an open stream of its figures, which ends with its process; nothing is asked on
// the way of an upload.
type peers struct {
	self    image.NodeID
	every   time.Duration // period of a peer's figures
	silence time.Duration // without figures for this long, a peer is down
	stall   time.Duration // without a byte for this long, another copy is read
	logger  *zap.Logger
	changed func()      // called when a peer goes up or down, or takes on work or images or no longer does
	works   func() bool // this node takes on work
	full    func() bool // this node has no room for more images
	http    *http.Client
	send    *http.Client // uploads

	mu       sync.Mutex
	addr     map[image.NodeID]string // API host:port of the others
	state    map[image.NodeID]peerState
	watching context.Context // of watch; nil before
	ends     map[image.NodeID]context.CancelFunc
	wg       sync.WaitGroup
}

type peerState struct {
	up     bool
	since  time.Time       // it is up or down
	status wire.NodeStatus // the last heard
}

func (s peerState) draining() bool { return s.status.State == wire.NodeDraining }
func (s peerState) live() bool     { return s.up && !s.draining() && s.status.Problem == "" }
func (s peerState) room() bool     { return s.live() && !s.status.DiskFull }

// The buffers of a connection, of which every slow client may hold one: for uploads sent on, and for the rest.
const (
	sendBufferBytes = 256 << 10
	readBufferBytes = 32 << 10
)

// peerConnections are kept open to another node while they are not used.
const peerConnections = 16

// transport returns connections to the other nodes. A buffer of 0 is that of net/http, 4 KiB.
func transport(dial time.Duration, write, read int) http.RoundTripper {
	return refuseRedirects{&http.Transport{
		DialContext:         halfopen.Dialer(dial, halfopen.Unanswered).DialContext,
		MaxIdleConnsPerHost: peerConnections, IdleConnTimeout: time.Minute, DisableCompression: true,
		WriteBufferSize: write, ReadBufferSize: read,
	}}
}

// refuseRedirects makes an answer that sends the request elsewhere an error: nodes give none, and what they
// tell each other is not for whoever such an answer names.
type refuseRedirects struct{ *http.Transport }

// RoundTrip implements http.RoundTripper.
func (t refuseRedirects) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.Transport.RoundTrip(req)
	if err != nil || resp.StatusCode < 300 || resp.StatusCode >= 400 || resp.StatusCode == http.StatusNotModified {
		return resp, err
	}
	resp.Body.Close()
	return nil, image.Errorf(image.KindInvalid, "%s, where a node should be, answered %s to %q: a node does not redirect",
		req.URL.Host, resp.Status, resp.Header.Get("Location")).
		WithHint("check the nodes' addresses in the configuration, and that no proxy stands between the nodes")
}

// addresses are those of all peers.
func (p *peers) addresses() map[image.NodeID]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.addr)
}

// url returns the start of a peer's URLs.
func (p *peers) url(id image.NodeID) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	addr := p.addr[id]
	if addr == "" {
		return "", image.Errorf(image.KindNoQuorum, "node %d is not a member of the cluster", id)
	}
	return "http://" + addr, nil
}

// update makes the peers those of a membership.
func (p *peers) update(m *catalog.Membership) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range m.Members {
		if x.ID != p.self {
			p.add(x.ID, x.API)
		}
	}
	for id := range p.addr {
		if m.Member(id) == nil {
			if p.ends[id] != nil {
				p.ends[id]()
			}
			delete(p.addr, id)
			delete(p.state, id)
			delete(p.ends, id)
		}
	}
}

// add takes a peer in and follows it if others are. Held: mu.
func (p *peers) add(id image.NodeID, addr string) {
	if p.addr[id] == addr {
		return
	}
	if p.ends[id] != nil {
		p.ends[id]()
	}
	p.addr[id] = addr
	p.state[id] = peerState{since: time.Now()}
	if p.watching != nil && p.watching.Err() == nil {
		p.start(id)
	}
}

// start follows a peer. Held: mu.
func (p *peers) start(id image.NodeID) {
	ctx, end := context.WithCancel(p.watching)
	p.ends[id] = end
	p.wg.Go(func() {
		for unknown := false; ctx.Err() == nil; {
			err := p.follow(ctx, id)
			if ctx.Err() != nil {
				return
			}
			if dns := (*net.DNSError)(nil); errors.As(err, &dns) && !unknown {
				unknown = true
				p.logger.Warn("a peer's host does not resolve here", zap.Uint32("peer", uint32(id)), zap.Error(err),
					zap.String("hint", "start the peer where its name comes with it; else add the name to the DNS or to /etc/hosts"))
			}
			p.set(id, func(s *peerState) { s.up = false }, err)
			wait.For(ctx, p.every/2)
		}
	})
}

// watch keeps a stream of each peer's figures open until ctx ends.
func (p *peers) watch(ctx context.Context) {
	p.mu.Lock()
	p.watching = ctx
	for id := range p.addr {
		p.start(id)
	}
	p.mu.Unlock()
	<-ctx.Done()
	p.wg.Wait()
}

// serves lists the shards that an up peer has the newest state of.
func (p *peers) serves(id image.NodeID) []uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.state[id]; s.up {
		return s.status.Serves
	}
	return nil
}

// receives reports whether an up peer says that the body of an upload comes in there.
func (p *peers) receives(id image.NodeID, upload image.ID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.state[id]
	return s.up && slices.Contains(s.status.Receiving, upload)
}

// follow reads one stream to its end.
func (p *peers) follow(ctx context.Context, id image.NodeID) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ticker := time.NewTicker(p.silence / silenceTicks)
	defer ticker.Stop()
	var quiet silence
	go quiet.watch(ctx, ticker.C, cancel)
	resp, err := p.get(ctx, id, wire.StatusPath, "")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for d := json.NewDecoder(resp.Body); ; {
		var status wire.NodeStatus
		if err := d.Decode(&status); err != nil {
			return err
		}
		quiet.ticks.Store(0)
		p.set(id, func(s *peerState) { s.up, s.status = true, status }, nil)
	}
}

// silence counts the ticks since something was heard. It goes by ticks, and not by the clock, so that the time
// in which this process itself was stopped is nobody's silence: what the others said meanwhile is still
// to be read, and a leader would take the others' uploads away from them.
type silence struct{ ticks atomic.Int32 }

// silenceTicks of silence are too many.
const silenceTicks = 10

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

func (p *peers) set(id image.NodeID, change func(*peerState), cause error) {
	p.mu.Lock()
	old, known := p.state[id]
	if !known { // removed meanwhile
		p.mu.Unlock()
		return
	}
	s := old
	change(&s)
	if s.up != old.up {
		s.since = time.Now()
	}
	p.state[id] = s
	p.mu.Unlock()
	switch peer := zap.Uint32("peer", uint32(id)); {
	case s.up == old.up && s.live() == old.live() && s.room() == old.room() && slices.Equal(s.status.Serves, old.status.Serves):
		return
	case s.up == old.up && s.draining() == old.draining():
	case !s.up && s.draining(): // it said so before
		p.logger.Info("peer has stopped", peer)
	case !s.up:
		p.logger.Warn("peer is down", peer, zap.Error(cause))
	case s.status.Problem != "":
		p.logger.Warn("peer stores nothing", peer, zap.String("problem", s.status.Problem))
	case s.status.DiskFull:
		p.logger.Warn("peer has no room for more images", peer, zap.String("lacks", string(s.status.DiskLacks)), zap.Int64("free_bytes", s.status.DiskFreeBytes), zap.Int64("free_inodes", s.status.DiskFreeInodes))
	case s.draining():
		p.logger.Info("peer is stopping", peer)
	default:
		p.logger.Info("peer is up", peer)
	}
	p.changed()
}

// up lists this node and the peers that are up, in order.
func (p *peers) up() []image.NodeID {
	return p.list(true, func(s peerState) bool { return s.up })
}

// live lists the nodes that take on work, in order: those that are up, not draining, and whose disks
// have not failed.
func (p *peers) live() []image.NodeID {
	return p.list(p.works(), peerState.live)
}

// room lists the nodes that take on more images, in order: the live ones whose disks are not full.
func (p *peers) room() []image.NodeID {
	return p.list(p.works() && !p.full(), peerState.room)
}

// gone lists the peers that have been down for longer than delay, in no order.
func (p *peers) gone(delay time.Duration) (ids []image.NodeID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, s := range p.state {
		if !s.up && time.Since(s.since) > delay {
			ids = append(ids, id)
		}
	}
	return ids
}

func (p *peers) list(self bool, ok func(peerState) bool) (ids []image.NodeID) {
	if self {
		ids = append(ids, p.self)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, s := range p.state {
		if ok(s) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func (p *peers) get(ctx context.Context, id image.NodeID, path, byteRange string) (*http.Response, error) {
	base, err := p.url(id)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	if err != nil {
		return nil, err
	}
	if byteRange != "" {
		req.Header.Set("Range", byteRange)
	}
	return p.do(req)
}

// do sends a request and turns an answer that is not a success into its error.
func (p *peers) do(req *http.Request) (*http.Response, error) { return p.doWith(p.http, req) }

func (p *peers) doWith(c *http.Client, req *http.Request) (*http.Response, error) {
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	if problem := wire.ReadProblem(resp); problem != nil {
		return nil, problem
	}
	return nil, fmt.Errorf("%s answered %s", req.URL.Host, resp.Status)
}

// Send implements ingest.Peers: it passes an upload on to a storing node.
func (p *peers) Send(ctx context.Context, to image.NodeID, up image.Request, body io.Reader) error {
	base, err := p.url(to)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, base+wire.ImagePath(up.User, up.Name), io.NopCloser(body))
	if err != nil {
		return err
	}
	req.ContentLength = up.Size
	up.If = image.Conditions{}     // the shard has judged them
	wire.SetUpload(req.Header, up) // with the digest: only the nodes that store compare it
	resp, err := p.doWith(p.send, req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, answerBytesMax))
	return err
}

// openCopy returns bytes [off, off+n) of a peer's file of a copy. Reading fails when none come for a
// while.
func (p *peers) openCopy(ctx context.Context, node image.NodeID, id image.ID, epoch uint32, off, n int64) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	b := &peerBody{cancel: cancel, stall: p.stall}
	var resp *http.Response
	err := b.within(func() (err error) {
		resp, err = p.get(ctx, node, wire.CopyPath(id, epoch), fmt.Sprintf("bytes=%d-%d", off, off+n-1))
		return err
	})
	if err != nil {
		cancel(nil)
		return nil, err
	}
	b.body = resp.Body
	if resp.StatusCode != http.StatusPartialContent || resp.ContentLength > n {
		b.Close()
		return nil, fmt.Errorf("node %d answered %s to a range request", node, resp.Status)
	}
	return b, nil
}

var errPeerStalls = errors.New("the peer has stopped to answer")

// peerBody is an answer that ends when the peer sends nothing for a while. Its connection alone may
// be dead while the peer's signs of life come on another one.
type peerBody struct {
	body   io.ReadCloser
	cancel context.CancelCauseFunc
	stall  time.Duration
}

// within gives f the time of a stall.
func (b *peerBody) within(f func() error) error {
	timer := time.AfterFunc(b.stall, func() { b.cancel(errPeerStalls) })
	defer timer.Stop()
	return f()
}

// Read implements io.Reader.
func (b *peerBody) Read(p []byte) (n int, err error) {
	err = b.within(func() error {
		n, err = b.body.Read(p)
		return err
	})
	return n, err
}

// Close implements io.Closer.
func (b *peerBody) Close() error {
	defer b.cancel(nil)
	return b.body.Close()
}

// reports are what the leaders of shards tell of them, by the leader.
func (p *peers) reports() map[image.NodeID][]wire.ShardReport {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[image.NodeID][]wire.ShardReport{}
	for id, s := range p.state {
		if s.up {
			all[id] = s.status.Leads
		}
	}
	return all
}

// copyBytes asks for the length of a peer's file of a copy.
func (p *peers) copyBytes(ctx context.Context, node image.NodeID, id image.ID, epoch uint32) (int64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.stall, errPeerStalls)
	defer cancel()
	base, err := p.url(node)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, base+wire.CopyPath(id, epoch), nil)
	if err != nil {
		return 0, err
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("node %d answered %s", node, resp.Status)
	}
	return resp.ContentLength, nil
}

// post sends a JSON body to a peer's address and returns the answer.
func (p *peers) post(ctx context.Context, addr, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", wire.DocumentType)
	resp, err := p.do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, answerBytesMax))
}

// suspect asks a peer to look at its copy of an image.
func (p *peers) suspect(ctx context.Context, node image.NodeID, rec *image.Record) error {
	ctx, cancel := context.WithTimeoutCause(ctx, p.stall, errPeerStalls)
	defer cancel()
	path := wire.SuspectPath + "?" + wire.NameQuery(rec.User, rec.Name).Encode()
	_, err := p.post(ctx, p.addresses()[node], path, nil)
	return err
}

// unreachable tells that a peer did not answer at all, as opposed to refusing.
func unreachable(err error) bool { return err != nil && !errors.As(err, new(*image.Error)) }
