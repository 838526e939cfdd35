package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// Upload is one image to store.
type Upload struct {
	User, Name string
	Size       int64
	// Body returns a new reader of the whole image at each call; it is called for each node and each
	// try, and the readers are read at the same time. One that is an io.Closer is closed. A
	// *bytes.Reader is sent without a copy.
	Body        func() io.Reader
	ID          image.ID      // the upload ID; zero: a new one
	IfNoneMatch bool          // refuse with image.KindExists when the name is taken
	Digest      *image.Digest // the nodes compare it with what arrives; may be nil
}

// Result is the outcome of an upload. It is valid for a failed one too, without Receipt and Node.
type Result struct {
	Receipt  image.Receipt
	Node     image.NodeID // the node whose receipt came first
	Attempts int
	// Done is closed when nothing reads the bodies any more. That is after the receipt: the other
	// nodes are still being sent the rest. Wait for it before reusing the image's memory, and before
	// the process ends if the connections should not be cut.
	Done <-chan struct{}

	sent *atomic.Int64
}

// SentBytes counts the body bytes given to the network, over all nodes and tries. It is final once
// Done is closed.
func (r Result) SentBytes() int64 {
	if r.sent == nil {
		return 0
	}
	return r.sent.Load()
}

// Put stores an image and returns when it is durable and committed. Unreachable and failing nodes
// do not matter while one node gives a receipt. When none does, Put tries again under the same
// upload ID, unless a node refused the upload. Cancelling ctx ends the upload, which may still
// become committed.
func (c *Client) Put(ctx context.Context, up Upload) (Result, error) {
	p := &put{c: c, up: up}
	p.wait = c.wait(&p.sent)
	defer p.wait.end()
	if err := p.prepare(ctx); err != nil {
		return p.result(answer{}), err
	}
	for attempt := 1; ; attempt++ {
		a, failures := p.try(ctx)
		if failures == nil {
			return p.result(a), nil
		}
		if ctx.Err() != nil {
			return p.result(answer{}), fmt.Errorf("upload of %s/%s: %w", up.User, up.Name, context.Cause(ctx))
		}
		err, retry := p.c.summarize(failures)
		if !retry || attempt == c.o.Attempts {
			return p.result(answer{}), err
		}
		// The shard may have moved to nodes that this client does not know of, away from one that is down
		// and cannot say so.
		c.stale.Store(true)
		p.wait.retry()
		if err := c.pause(ctx, attempt, err); err != nil {
			return p.result(answer{}), fmt.Errorf("upload of %s/%s: %w", up.User, up.Name, err)
		}
	}
}

// put is one upload under way.
type put struct {
	c        *Client
	up       Upload
	path     string
	header   http.Header
	attempts int
	sent     atomic.Int64
	wait     *wait
	streams  sync.WaitGroup // open streams and bodies in use
	detached context.Context
	cleanups []func()
}

// answer is one node's receipt, or why there is none.
type answer struct {
	node    Node
	receipt image.Receipt
	failure *failure
}

func (p *put) prepare(ctx context.Context) error {
	up := &p.up
	path, err := imagePath(up.User, up.Name)
	if err != nil {
		return err
	}
	if up.Size <= 0 || up.Body == nil {
		return image.Errorf(image.KindInvalid, "%s/%s is empty", up.User, up.Name).
			WithHint("upload a file that has something in it")
	}
	if up.ID == (image.ID{}) {
		up.ID = image.NewID()
	}
	p.path = path
	req := image.Request{ID: up.ID, Digest: up.Digest}
	if up.IfNoneMatch {
		req.If.NoneMatch = image.Tags{image.AnyTag}
	}
	p.header = http.Header{}
	wire.SetUpload(p.header, req)
	p.detached = context.WithoutCancel(ctx)
	return nil
}

// result returns to the caller while streams may still be open.
func (p *put) result(a answer) Result {
	done := make(chan struct{})
	go func() {
		p.streams.Wait()
		for _, f := range p.cleanups {
			f()
		}
		close(done)
	}()
	return Result{Receipt: a.receipt, Node: a.node.ID, Attempts: p.attempts, Done: done, sent: &p.sent}
}

// try sends the upload once to every node that holds its shard, or with relay to one node after the other.
// Without failures there is an answer.
func (p *put) try(ctx context.Context) (answer, []failure) {
	nodes := p.c.o.Nodes
	if p.c.o.Delivery == Broadcast {
		to := p.c.holders(ctx, p.up.User, p.up.Name)
		p.header.Set(wire.BroadcastField, to.broadcast)
		return p.broadcast(ctx, to.nodes)
	}
	var failures []failure
	first := int(p.c.nextRelay.Add(1) - 1)
	for i := range nodes {
		a, failed := p.broadcast(ctx, nodes[(first+i)%len(nodes):][:1])
		if failed == nil {
			return a, nil
		}
		failures = append(failures, failed...)
		if failed[0].refused() || ctx.Err() != nil {
			break
		}
	}
	return answer{}, failures
}

// broadcast sends the upload to the nodes at once and returns with the first receipt, or with the
// failures of all of them. After a receipt or a refusal the others have StragglerTimeout.
func (p *put) broadcast(ctx context.Context, nodes []Node) (answer, []failure) {
	p.attempts++
	answers := make(chan answer, len(nodes))
	streams := make([]*stream, len(nodes))
	for i, n := range nodes {
		streams[i] = p.open(n)
		p.streams.Go(func() { answers <- streams[i].send() })
	}
	abort := func() {
		for _, s := range streams {
			s.cancel()
		}
	}
	stop := context.AfterFunc(ctx, abort) // the caller's ctx counts only until Put returns
	defer stop()
	var failures []failure
	for range nodes {
		a := <-answers
		if a.failure == nil {
			p.letFinish(streams, abort)
			return a, nil
		}
		if a.failure.status == http.StatusMisdirectedRequest {
			p.c.stale.Store(true)
		}
		p.wait.fail(*a.failure)
		if failures = append(failures, *a.failure); a.failure.refused() {
			p.letFinish(streams, abort)
		}
	}
	return answer{}, failures
}

// letFinish leaves the open streams some time: each will soon have the same answer, and keeps its
// connection. A stream that still waits for a connection gets less, so that a host that is down
// does not hold up each upload for the time of a dial.
func (p *put) letFinish(streams []*stream, abort func()) {
	connect := time.AfterFunc(min(connectGrace, p.c.o.StragglerTimeout), func() {
		for _, s := range streams {
			if !s.started() {
				s.cancel()
			}
		}
	})
	end := time.AfterFunc(p.c.o.StragglerTimeout, abort)
	p.cleanups = append(p.cleanups, func() { connect.Stop(); end.Stop() })
}

// stream is the upload's way to one node in one try.
type stream struct {
	p      *put
	node   Node
	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex
	bodies []*body // more than one when a kept-alive connection had died
}

func (p *put) open(n Node) *stream {
	s := &stream{p: p, node: n}
	s.ctx, s.cancel = context.WithCancel(p.detached)
	stop := context.AfterFunc(p.c.ctx, s.cancel)
	p.cleanups = append(p.cleanups, func() { stop(); s.cancel() })
	return s
}

func (s *stream) body() (io.ReadCloser, error) {
	s.p.streams.Add(1)
	b := &body{r: s.p.up.Body(), size: s.p.up.Size, sent: &s.p.sent, free: s.p.streams.Done}
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
	req.Header = s.p.header.Clone()
	if err := s.p.c.authorize(req); err != nil {
		return nil, err
	}
	req.ContentLength = s.p.up.Size
	req.GetBody = s.body // for a kept-alive connection that the node has closed
	req.Body, err = s.body()
	return req, err
}
