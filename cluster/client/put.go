package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// Upload is one image to store.
type Upload struct {
	User, Name string
	Size       int64 // bytes, at least 1
	// Body returns a new reader of the whole image at each call; it is called for each node and each
	// try, and the readers are read at the same time. One that is an io.Closer is closed. A
	// *bytes.Reader is sent without a copy.
	Body        func() io.Reader
	ID          image.ID      // the upload ID; zero: a new one
	IfNoneMatch bool          // refuse with image.KindExists when the name is taken
	Digest      *image.Digest // the nodes compare it with what arrives; may be nil
	Type        string        // Content-Type; empty: that of the name
}

// Result is the outcome of an upload. It is valid for a failed one too, without Receipt and Node.
type Result struct {
	Receipt  image.Receipt
	Node     image.NodeID // the node whose receipt came first
	Attempts int          // tries, 1 when the first did it; with Relay, requests
	Delivery Delivery     // by which it was sent, which Auto has chosen
	// Done is closed when nothing reads the bodies any more. That is after the receipt: the other
	// nodes are still being sent the rest. Wait for it before reusing the image's memory, and before
	// the process ends if the connections should not be cut.
	Done <-chan struct{}

	put *put
}

// SentBytes counts the body bytes given to the network, over all nodes and tries. It is final once
// Done is closed.
func (r Result) SentBytes() int64 {
	if r.put == nil {
		return 0
	}
	return r.put.sent.Load()
}

// Chosen is what Auto has decided by this upload, the last of the first ones; nil for all others. It is known
// once Done is closed.
func (r Result) Chosen() *Choice {
	if r.put == nil {
		return nil
	}
	return r.put.chosen
}

// AgainBytes are those of SentBytes that went to nodes which took an announced upload over and could not get
// it from another one.
func (r Result) AgainBytes() int64 {
	if r.put == nil {
		return 0
	}
	return r.put.again.Load()
}

// Put stores an image, in place of one that has its name, and returns when it is durable and committed.
// Unreachable and failing nodes do not matter while one node gives a receipt. When none does, Put tries again
// under the same upload ID, unless a node refused the upload. Cancelling ctx ends the upload, which may still
// become committed.
//
// Kinds of errors: KindInvalid (a name, an empty image, a body that cannot be read or is not of Size bytes),
// KindExists with IfNoneMatch, KindDigest, KindTooLarge, KindUnauthorized, KindForbidden, KindConflict (the
// ID with other bytes), KindDiskFull; after all tries KindNoQuorum, KindOverload and KindAborted.
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
	header   http.Header // of the upload
	asking   http.Header // of its announcement
	delivery Delivery
	chosen   *Choice
	attempts int
	sent     atomic.Int64 // bytes
	again    atomic.Int64 // bytes: see Result.AgainBytes
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
	p.delivery = p.c.choose(p)
	req := image.Request{ID: up.ID}
	if up.IfNoneMatch {
		req.If.NoneMatch = image.Tags{image.AnyTag}
	}
	p.asking = http.Header{}
	wire.SetUpload(p.asking, req)
	p.header = http.Header{}
	req.Digest, req.Announced = up.Digest, p.delivery == Announce
	wire.SetUpload(p.header, req)
	if up.Type != "" {
		p.header.Set("Content-Type", up.Type)
	}
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
		p.chosen = p.c.measure(p, a.failure == nil && a.receipt.Committed)
		close(done)
	}()
	return Result{
		Receipt: a.receipt, Node: a.node.ID, Attempts: p.attempts, Delivery: p.delivery, Done: done, put: p,
	}
}

// try sends the upload once to every node that holds its shard, to those that an announcement names, or with
// relay to one node after the other. Without failures there is an answer.
func (p *put) try(ctx context.Context) (answer, []failure) {
	switch p.delivery {
	case Broadcast:
		p.attempts++
		return p.send(ctx, p.c.holders(ctx, p.up.User, p.up.Name), nil)
	case Announce:
		p.attempts++
		to, failures := p.announce(ctx, nil)
		if failures != nil {
			return answer{}, failures
		}
		return p.send(ctx, to, p.announce)
	}
	nodes := p.c.o.Nodes
	var failures []failure
	first := int(p.c.nextRelay.Add(1) - 1)
	for i := range nodes {
		p.attempts++
		a, failed := p.send(ctx, shardNodes{nodes: nodes[(first+i)%len(nodes):][:1]}, nil)
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

// announce returns the nodes that the upload is to be sent to, as one of those that hold its shard says: none
// of without.
func (p *put) announce(ctx context.Context, without []image.NodeID) (shardNodes, []failure) {
	c, holders := p.c, p.c.holders(ctx, p.up.User, p.up.Name)
	query := wire.AnnounceQuery{Bytes: p.up.Size, Without: without}.Values().Encode()
	ids, at, failures := hedged(ctx, holders.nodes, int(c.announced.Load()),
		func(ctx context.Context, n Node) (ids []image.NodeID, f *failure) {
			r, f := c.askNode(ctx, n, http.MethodPost, p.path+"?"+query, p.asking, nil)
			if f != nil {
				return nil, f
			}
			var a wire.Announcement
			if err := r.decode(&a); err != nil {
				return nil, &failure{node: n, status: http.StatusBadGateway, err: err}
			}
			return a.Nodes, nil
		})
	for _, f := range failures {
		p.failed(f)
	}
	if failures != nil {
		return shardNodes{}, failures
	}
	c.announced.Store(uint32(at))
	var nodes []Node
	for _, id := range ids {
		i := slices.IndexFunc(holders.nodes, func(n Node) bool { return n.ID == id })
		if i < 0 { // the shard has moved
			c.stale.Store(true)
			continue
		}
		nodes = append(nodes, holders.nodes[i])
	}
	if len(nodes) == 0 {
		return shardNodes{}, []failure{{
			node: holders.nodes[at], status: http.StatusMisdirectedRequest,
			err: image.Errorf(image.KindMisplaced, "the nodes that are to store the image are not known").
				WithHint("try again: the client asks for them"),
		}}
	}
	return newShardNodes(nodes), nil
}

// failed takes note of why a node did not serve the upload.
func (p *put) failed(f failure) {
	if f.status == http.StatusMisdirectedRequest {
		p.c.stale.Store(true)
	}
	p.wait.fail(f)
}
