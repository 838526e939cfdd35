package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

var (
	errClosed  = errors.New("the client is closed")
	errLimit   = errors.New("the time for a read is over")
	errTimeout = errors.New("the node does not answer in time")
)

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

// ask sends a request to the nodes in turn until one serves or refuses it. A read ends after
// ReadLimit.
func (c *Client) ask(ctx context.Context, method, path string, header http.Header, body []byte) (
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

// askAll is ask without a limit. It keeps in last, by node, how each one failed last.
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
			r, f := c.askNode(ctx, nodes[at], method, path, header, body)
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

// askNode sends one request. The node has ReadTimeout for the head of its answer.
func (c *Client) askNode(
	ctx context.Context, n Node, method, path string, header http.Header, body []byte,
) (*reply, *failure) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.ctx, func() { cancel(errClosed) })
	end := func() { stop(); cancel(nil) }
	timer := time.AfterFunc(c.o.ReadTimeout, func() { cancel(errTimeout) })
	req, err := http.NewRequestWithContext(ctx, method, c.scheme+n.Addr+path, bytes.NewReader(body))
	if err != nil {
		end()
		return nil, &failure{node: n, err: err}
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if err := c.authorize(req); err != nil {
		end()
		return nil, &failure{node: n, err: err}
	}
	resp, err := c.http.Do(req)
	timer.Stop()
	if err != nil {
		end()
		return nil, &failure{node: n, err: c.explain(n, err)}
	}
	if resp.StatusCode >= 300 {
		defer end()
		defer drain(resp)
		f := refusal(n, resp)
		return nil, &f
	}
	return &reply{node: n, resp: resp, cancel: end}, nil
}

// imagePath is wire.ImagePath of names that are checked.
func imagePath(user, name string) (string, error) {
	if err := image.CheckName(name); err != nil {
		return "", err
	}
	return wire.ImagePath(user, name), image.CheckUser(user)
}
