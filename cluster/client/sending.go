package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// sending is one try of an upload: its streams to nodes.
type sending struct {
	p       *put
	answers chan answer
	over    chan struct{} // closed when no answer is waited for any more
	running int           // streams without an answer

	mu      sync.Mutex
	streams []*stream
	aborted bool
}

// nodesFunc returns the nodes that get an upload, of which without are none.
type nodesFunc func(ctx context.Context, without []image.NodeID) (shardNodes, []failure)

// send sends the upload to nodes at once and returns with the first receipt, or with the failures of all of
// them. After a receipt or a refusal the others have StragglerTimeout. When all have failed, or nothing moves
// for askAgainAfter, again says who else gets it, once; it may be nil.
func (p *put) send(ctx context.Context, to shardNodes, again nodesFunc) (answer, []failure) {
	s := &sending{p: p, answers: make(chan answer), over: make(chan struct{})}
	defer close(s.over)
	stop := context.AfterFunc(ctx, s.abort) // the caller's ctx counts only until Put returns
	defer stop()
	s.start(to, false)
	ticker := time.NewTicker(askAgainAfter)
	defer ticker.Stop()
	var sent int64
	var failures []failure
	for s.running > 0 {
		stalled := false
		select {
		case a := <-s.answers:
			s.running--
			if a.failure == nil {
				s.letFinish()
				return a, nil
			}
			p.failed(*a.failure)
			if failures = append(failures, *a.failure); a.failure.refused() {
				s.letFinish()
				again = nil
			}
		case <-ticker.C:
			now := p.sent.Load()
			stalled, sent = now == sent, now
		}
		if again != nil && ctx.Err() == nil && (s.running == 0 || stalled) {
			more, failed := again(ctx, s.unreached())
			again = nil
			failures = append(failures, failed...)
			s.start(more, true)
		}
	}
	return answer{}, failures
}

// start opens streams to nodes that have none, or whose streams have failed.
func (s *sending) start(to shardNodes, again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.aborted {
		return
	}
	for _, n := range to.nodes {
		if slices.ContainsFunc(s.streams, func(x *stream) bool { return x.node == n && !x.failed.Load() }) {
			continue
		}
		x := s.p.open(n, to.broadcast)
		x.again = again
		s.streams = append(s.streams, x)
		s.running++
		s.p.streams.Go(func() {
			a := x.send()
			x.failed.Store(a.failure != nil)
			select {
			case s.answers <- a:
			case <-s.over:
			}
		})
	}
}

// unreached returns the nodes that have not got the whole body.
func (s *sending) unreached() (nodes []image.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.streams {
		if x.failed.Load() || x.bytes.Load() < s.p.up.Size {
			nodes = append(nodes, x.node.ID)
		}
	}
	return nodes
}

// abort ends all streams.
func (s *sending) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aborted = true
	for _, x := range s.streams {
		x.cancel()
	}
}

// letFinish leaves the open streams some time: each will soon have the same answer, and keeps its
// connection. A stream that still waits for a connection gets less, so that a host that is down
// does not hold up each upload for the time of a dial.
func (s *sending) letFinish() {
	straggler := s.p.c.o.StragglerTimeout
	connect := time.AfterFunc(min(connectGrace, straggler), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, x := range s.streams {
			if !x.started() {
				x.cancel()
			}
		}
	})
	end := time.AfterFunc(straggler, s.abort)
	s.p.cleanups = append(s.p.cleanups, func() { connect.Stop(); end.Stop() })
}

// stream is the upload's way to one node in one try.
type stream struct {
	p      *put
	node   Node
	header http.Header
	again  bool // the upload was announced once more
	ctx    context.Context
	cancel context.CancelFunc
	failed atomic.Bool
	bytes  atomic.Int64 // that were given to the network

	mu     sync.Mutex
	bodies []*body // more than one when a kept-alive connection had died
}

func (p *put) open(n Node, broadcast string) *stream {
	s := &stream{p: p, node: n, header: p.header.Clone()}
	if broadcast != "" {
		s.header.Set(wire.BroadcastField, broadcast)
	}
	s.ctx, s.cancel = context.WithCancel(p.detached)
	stop := context.AfterFunc(p.c.ctx, s.cancel)
	p.cleanups = append(p.cleanups, func() { stop(); s.cancel() })
	return s
}

// sent counts bytes that were given to the network.
func (s *stream) sent(n int64) {
	s.bytes.Add(n)
	s.p.sent.Add(n)
	if s.again {
		s.p.again.Add(n)
	}
}

func (s *stream) body() (io.ReadCloser, error) {
	s.p.streams.Add(1)
	b := &body{r: s.p.up.Body(), size: s.p.up.Size, sent: s.sent, free: s.p.streams.Done}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bodies = append(s.bodies, b)
	return b, nil
}

func (s *stream) started() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.bodies {
		if started, _ := b.state(); started {
			return true
		}
	}
	return false
}

// bodyErr returns what is wrong with the image itself.
func (s *stream) bodyErr() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.bodies {
		if _, err := b.state(); err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) send() answer {
	failed := func(f failure) answer { return answer{node: s.node, failure: &f} }
	req, err := s.request()
	if err != nil {
		return failed(failure{node: s.node, err: err})
	}
	resp, err := s.p.c.http.Do(req)
	if bad := s.bodyErr(); bad != nil {
		err = bad
	}
	if err != nil {
		return failed(failure{node: s.node, err: s.p.c.explain(s.node, err)})
	}
	defer drain(resp)
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated {
		return failed(refusal(s.node, resp))
	}
	a := answer{node: s.node}
	err = json.NewDecoder(io.LimitReader(resp.Body, answerBytesMax)).Decode(&a.receipt)
	if err != nil || !a.receipt.Committed || a.receipt.Bytes != s.p.up.Size {
		return failed(failure{
			node: s.node, status: http.StatusBadGateway,
			err: image.Errorf(image.KindInternal,
				"node %d answered the upload without a receipt for %d bytes", s.node.ID, s.p.up.Size).
				WithHint("check that " + s.node.Addr + " is a node of the cluster"),
		})
	}
	return a
}

func (s *stream) request() (*http.Request, error) {
	req, err := http.NewRequestWithContext(s.ctx, http.MethodPut, s.p.c.scheme+s.node.Addr+s.p.path, nil)
	if err != nil {
		return nil, err
	}
	req.Header = s.header
	if err := s.p.c.authorize(req); err != nil {
		return nil, err
	}
	req.ContentLength = s.p.up.Size
	req.GetBody = s.body // for a kept-alive connection that the node has closed
	req.Body, err = s.body()
	return req, err
}
