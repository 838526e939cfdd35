package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// Info is one image by the headers that come with it.
type Info struct {
	User string `json:"user"`
	wire.Info
	Shard uint64 `json:"shard"`
}

// Object is an image being read.
type Object struct {
	Info Info
	// Body must be closed. It fails with an *image.Error when the image ends before Size bytes.
	Body io.ReadCloser
	Size int64        // of Body
	Node image.NodeID // the node that sends it
}

// Get opens an image at the first node that can serve it; encrypted: the stored file instead.
func (c *Client) Get(ctx context.Context, user, name string, encrypted bool) (*Object, error) {
	path, err := imagePath(user, name)
	if err != nil {
		return nil, err
	}
	if encrypted {
		path += "?" + wire.EncryptedForm
	}
	r, err := c.ask(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	obj := &Object{Info: info(user, name, r.resp), Size: r.resp.ContentLength, Node: r.node.ID}
	if obj.Size < 0 {
		r.close()
		return nil, badAnswer(r.node, "an image without its length")
	}
	obj.Body = &objectBody{reply: r, c: c, left: obj.Size, size: obj.Size, stall: c.o.ResponseTimeout}
	return obj, nil
}

// objectBody checks that all of the image comes, and ends a stream that stalls.
type objectBody struct {
	*reply
	c          *Client
	left, size int64
	stall      time.Duration
}

func (b *objectBody) Read(p []byte) (int, error) {
	w := b.c.wait(nil)
	defer w.end()
	w.asked(b.node)
	timer := time.AfterFunc(b.stall, b.cancel) // the read then fails
	n, err := b.resp.Body.Read(p)
	timer.Stop()
	b.left -= int64(n)
	if err == nil || err == io.EOF && b.left == 0 {
		return n, err
	}
	return n, image.Errorf(image.KindAborted,
		"node %d ended the image after %d of %d bytes: %w", b.node.ID, b.size-b.left, b.size, err).
		WithHint("get it again: another node is asked when this one is down")
}

func (b *objectBody) Close() error {
	b.cancel() // what was not read costs the connection, not the time to read it
	return b.resp.Body.Close()
}

// Head returns what is known of an image, without its bytes.
func (c *Client) Head(ctx context.Context, user, name string) (Info, error) {
	path, err := imagePath(user, name)
	if err != nil {
		return Info{}, err
	}
	r, err := c.ask(ctx, http.MethodHead, path, nil)
	if err != nil {
		return Info{}, err
	}
	defer r.close()
	return info(user, name, r.resp), nil
}

// info reads the headers that a node sends with an image; what is missing stays zero.
func info(user, name string, resp *http.Response) Info {
	i := Info{User: user}
	i.Info, i.Shard = wire.ReadRecord(resp.Header)
	i.Name = name
	i.Bytes = resp.ContentLength
	return i
}

// Delete removes an image. It sends the request again when there is no answer, under the same ID: the
// answer is that of the first that arrived.
func (c *Client) Delete(ctx context.Context, user, name string) error {
	return c.DeleteMatching(ctx, user, name, "")
}

// DeleteMatching is Delete of an image that has that upload ID or SHA-256 only: KindChanged when another
// one has its name by now. An empty tag matches every image.
func (c *Client) DeleteMatching(ctx context.Context, user, name, tag string) error {
	path, err := imagePath(user, name)
	if err != nil {
		return err
	}
	header := http.Header{wire.UploadField: {image.NewID().String()}}
	if tag != "" {
		wire.SetConditions(header, image.Conditions{Match: image.Tags{strconv.Quote(tag)}})
	}
	r, err := c.ask(ctx, http.MethodDelete, path, header)
	if err != nil {
		return err
	}
	r.close()
	return nil
}

// List returns one page of a user's images.
func (c *Client) List(ctx context.Context, user string, o wire.ListQuery) (wire.List, error) {
	path, err := userPath(user)
	if err != nil {
		return wire.List{}, err
	}
	if query := o.Values(); len(query) > 0 {
		path += "?" + query.Encode()
	}
	r, err := c.ask(ctx, http.MethodGet, path, nil)
	if err != nil {
		return wire.List{}, err
	}
	var list wire.List
	return list, r.decode(&list)
}

// All yields all images of a user that have the prefix, page by page. It ends after an error.
func (c *Client) All(ctx context.Context, user, prefix string) iter.Seq2[wire.Info, error] {
	return func(yield func(wire.Info, error) bool) {
		o := wire.ListQuery{Prefix: prefix}
		for {
			page, err := c.List(ctx, user, o)
			if err == nil && page.Next != "" && page.Next <= o.After {
				err = image.Errorf(image.KindInternal, "the list of %q goes on at %q again", user, page.Next)
			}
			if err != nil {
				yield(wire.Info{}, err)
				return
			}
			for _, i := range page.Images {
				if !yield(i, nil) {
					return
				}
			}
			if o.After = page.Next; o.After == "" {
				return
			}
		}
	}
}

// Cluster returns the cluster's state as one node sees it: the one that answered last time, or the
// first of the others to answer when it does not do so quickly. It does not try again.
func (c *Client) Cluster(ctx context.Context) (wire.ClusterStatus, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		index   int
		status  wire.ClusterStatus
		failure *failure
	}
	nodes, first := c.o.Nodes, int(c.last.Load())
	answers := make(chan answer, len(nodes))
	next := time.NewTicker(hedgeDelay)
	defer next.Stop()
	var failures []failure
	for asked := 0; len(failures) < len(nodes); {
		if asked < len(nodes) {
			i := (first + asked) % len(nodes)
			asked++
			go func() {
				a := answer{index: i}
				a.failure = c.document(ctx, nodes[i], wire.ClusterPath, &a.status)
				answers <- a
			}()
		}
		select {
		case a := <-answers:
			if a.failure == nil {
				c.last.Store(uint32(a.index))
				c.updateMembers(a.status)
				return a.status, nil
			}
			failures = append(failures, *a.failure)
		case <-next.C:
		}
	}
	if ctx.Err() != nil {
		return wire.ClusterStatus{}, errors.Join(c.nobodyAnswers(failures), context.Cause(ctx))
	}
	err, _ := c.summarize(failures)
	return wire.ClusterStatus{}, err
}

// updateMembers keeps the addresses of the members, which may be more than the client was given.
func (c *Client) updateMembers(s wire.ClusterStatus) {
	nodes := make([]Node, len(s.Nodes))
	for i, n := range s.Nodes {
		nodes[i] = Node{ID: n.ID, Addr: n.API}
	}
	c.members.Store(&nodes)
}

// knownNodes returns the nodes that the client was given, then the members that Cluster returned last.
func (c *Client) knownNodes() []Node {
	if m := c.members.Load(); m != nil {
		return slices.Concat(c.o.Nodes, *m)
	}
	return c.o.Nodes
}

// NodeCluster returns the cluster's state as the given node sees it: one that the client was given, or
// that Cluster returned.
func (c *Client) NodeCluster(ctx context.Context, id image.NodeID) (status wire.ClusterStatus, err error) {
	err = c.nodeDocument(ctx, id, wire.ClusterPath, &status)
	return status, err
}

// NodeInfo returns what the given node reports of itself alone.
func (c *Client) NodeInfo(ctx context.Context, id image.NodeID) (info wire.NodeInfo, err error) {
	err = c.nodeDocument(ctx, id, wire.NodePath, &info)
	return info, err
}

// nodeDocument asks one node, without trying again.
func (c *Client) nodeDocument(ctx context.Context, id image.NodeID, path string, v any) error {
	for _, n := range c.knownNodes() {
		if n.ID != id {
			continue
		}
		if f := c.document(ctx, n, path, v); f != nil {
			err, _ := c.summarize([]failure{*f})
			return err
		}
		return nil
	}
	return image.Errorf(image.KindInvalid, "unknown node ID %d", id).
		WithHint("the client knows the nodes " + c.allNodes.broadcast)
}

func (c *Client) document(ctx context.Context, n Node, path string, v any) *failure {
	r, f := c.askNode(ctx, n, http.MethodGet, path, nil)
	if f != nil {
		return f
	}
	if err := r.decode(v); err != nil {
		return &failure{node: n, status: http.StatusBadGateway, err: err}
	}
	return nil
}

// reply is a node's good answer, to be closed.
type reply struct {
	node   Node
	resp   *http.Response
	cancel context.CancelFunc
}

func (r *reply) close() {
	drain(r.resp)
	r.cancel()
}

func (r *reply) decode(v any) error {
	defer r.close()
	if err := json.NewDecoder(io.LimitReader(r.resp.Body, documentBytesMax)).Decode(v); err != nil {
		return badAnswer(r.node, "a document that cannot be read: %w", err)
	}
	return nil
}

func badAnswer(n Node, format string, args ...any) error {
	err := image.Errorf(image.KindInternal, format, args...)
	err.Detail = "node " + strconv.Itoa(int(n.ID)) + " sent " + err.Detail
	return err.WithHint("check that " + n.Addr + " is a node of the cluster")
}

// askWith sends a request to the nodes in turn until one serves or refuses it. A read ends after
// ReadLimit.
func (c *Client) askWith(ctx context.Context, method, path string, header http.Header, body []byte) (
	*reply, error,
) {
	if c.o.ReadLimit <= 0 || method != http.MethodGet && method != http.MethodHead {
		return c.askAll(ctx, nil, method, path, header, body)
	}
	limited, cancel := context.WithCancelCause(ctx)
	limit := time.AfterFunc(c.o.ReadLimit, func() { cancel(errLimit) })
	defer limit.Stop() // what follows the head of the answer has other limits
	last := make([]failure, len(c.o.Nodes))
	for i, n := range c.o.Nodes {
		last[i] = failure{node: n, err: errTimeout}
	}
	r, err := c.askAll(limited, last, method, path, header, body)
	if err != nil {
		over := context.Cause(limited) == errLimit
		if cancel(nil); over {
			err, _ = c.summarize(last)
			err = givenUp(err, c.o.ReadLimit)
		}
		return nil, err
	}
	end := r.cancel
	r.cancel = func() { end(); cancel(nil) }
	return r, nil
}

// givenUp returns err, the last of a request, with the time after which the client gave up.
func givenUp(err error, after time.Duration) error {
	e := &image.Error{
		Kind: image.KindOf(err), Detail: fmt.Sprintf("%v; given up after %s", err, after), Err: err,
	}
	var cause *image.Error
	if errors.As(err, &cause) {
		e.WithHint(cause.Hint())
	}
	return e
}

// askAll is askWith without a limit. It keeps in last, by node, how each one failed last.
func (c *Client) askAll(
	ctx context.Context, last []failure, method, path string, header http.Header, body []byte,
) (*reply, error) {
	w := c.wait(nil)
	defer w.end()
	nodes := c.o.Nodes
	for attempt := 1; ; attempt++ {
		var failures []failure
		first := int(c.last.Load())
		for i := range nodes {
			at := (first + i) % len(nodes)
			w.asked(nodes[at])
			r, f := c.askNodeWith(ctx, nodes[at], method, path, header, body)
			if f == nil {
				c.last.Store(uint32(at))
				return r, nil
			}
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			w.fail(*f)
			if last != nil {
				last[at] = *f
			}
			if failures = append(failures, *f); f.refused() {
				break
			}
		}
		err, retry := c.summarize(failures)
		if !retry || attempt == c.o.Attempts {
			return nil, err
		}
		if err := c.pause(ctx, attempt, err); err != nil {
			return nil, err
		}
	}
}

// askNodeWith sends one request. The node has ReadTimeout for the head of its answer.
func (c *Client) askNodeWith(
	ctx context.Context, n Node, method, path string, header http.Header, body []byte,
) (*reply, *failure) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.ctx, func() { cancel(errClosed) })
	end := func() { stop(); cancel(nil) }
	timer := time.AfterFunc(c.o.ReadTimeout, func() { cancel(errTimeout) })
	req, err := http.NewRequestWithContext(ctx, method, "http://"+n.Addr+path, bytes.NewReader(body))
	if err != nil {
		end()
		return nil, &failure{node: n, err: err}
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := c.http.Do(req)
	timer.Stop()
	if err != nil {
		end()
		return nil, &failure{node: n, err: err}
	}
	if resp.StatusCode >= 300 {
		defer end()
		defer drain(resp)
		f := refusal(n, resp)
		return nil, &f
	}
	return &reply{node: n, resp: resp, cancel: end}, nil
}
