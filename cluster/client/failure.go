package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"imgcluster/cluster/access"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// retryAfterMax bounds what a node may ask the client to wait.
const retryAfterMax = 30 * time.Second

// failure is why one node did not serve a request.
type failure struct {
	node   Node
	status int // 0: the node did not answer
	err    error
}

// temporary reports whether the same request may succeed later or at another node.
func (f failure) temporary() bool {
	switch {
	case f.mistrusted():
		return false
	case f.status == 0:
		return image.KindOf(f.err) != image.KindInvalid // a body that cannot be sent stays so
	}
	switch image.KindOf(f.err) {
	// the connection broke; the upload or the shard moved
	case image.KindIncomplete, image.KindStale, image.KindMisplaced:
		return true
	}
	switch f.status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusInsufficientStorage, http.StatusHTTPVersionNotSupported:
		return false
	}
	return f.status >= 500
}

// refused reports whether the node answered that this request is wrong.
func (f failure) refused() bool { return !f.temporary() && f.status < 500 && !f.mistrusted() }

// mistrusted reports whether whatever is at the node's address did not prove to be the node. Other nodes may.
func (f failure) mistrusted() bool { return errors.Is(f.err, ErrMistrusted) }

// summarize sums up the failures of all nodes asked: the error to report, and whether another try
// makes sense. A refusal outweighs everything: all nodes would answer the same.
func (c *Client) summarize(failures []failure) (err error, retry bool) {
	var answered, mistrusted error
	for _, f := range failures {
		if f.refused() {
			return f.err, false
		}
		if f.temporary() {
			retry = true
		}
		if f.mistrusted() && mistrusted == nil {
			mistrusted = f.err
		}
		if f.status != 0 && (answered == nil || f.temporary()) {
			answered = f.err
		}
	}
	if answered != nil && mistrusted != nil {
		return alsoMistrusted(answered, mistrusted), retry
	}
	if answered != nil {
		return answered, retry
	}
	if mistrusted != nil {
		return mistrusted, retry
	}
	return c.nobodyAnswers(failures), retry
}

// alsoMistrusted returns the error of a request that some nodes could not serve, perhaps because it did not
// reach others, which are not trusted.
func alsoMistrusted(answered, mistrusted error) error {
	e := image.Errorf(image.KindOf(answered), "%w; and %w", answered, mistrusted).
		WithHint(image.HintOf(mistrusted))
	var cause *image.Error
	if errors.As(answered, &cause) {
		e.WithRetry(cause.RetryAfter)
	}
	return e
}

// NobodyAnswers returns the error of a request that reached no node, with the causes that are known.
func (c *Client) NobodyAnswers(detail string, causes ...error) error {
	e := &image.Error{
		Kind: image.KindNoQuorum, Detail: detail, Err: errors.Join(append(causes, ErrNobodyAnswers)...),
	}
	return e.WithHint(c.o.StartHint)
}

// nobodyAnswers names the nodes in the order of their addresses: all such failures have one text.
func (c *Client) nobodyAnswers(failures []failure) error {
	failures = slices.SortedFunc(slices.Values(failures),
		func(a, b failure) int { return strings.Compare(a.node.Addr, b.node.Addr) })
	addrs := make([]string, len(failures))
	causes := make([]error, len(failures))
	for i, f := range failures {
		addrs[i] = f.node.Addr
		causes[i] = f.err
	}
	return c.NobodyAnswers("no node answers at "+strings.Join(addrs, ", "), causes...)
}

// refusal reads the error that a node answered with.
func refusal(node Node, resp *http.Response) failure {
	e := wire.ReadProblem(resp)
	switch {
	case e == nil && wantsTLS(resp):
		e = image.Errorf(image.KindInvalid, "node %d at %s speaks TLS, and this command plain HTTP",
			node.ID, node.Addr).WithHint(hintScheme)
	case e == nil:
		e = image.Errorf(wire.KindOfStatus(resp.StatusCode), "node %d answered %q", node.ID, resp.Status).
			WithHint("check that " + node.Addr + " is a node of the cluster").
			WithRetry(wire.RetryAfter(resp.Header))
	case resp.Request.Method == http.MethodHead:
		withoutBody(e, node)
	}
	return failure{node: node, status: resp.StatusCode, err: e}
}

// withoutBody says what a node means by the status alone, as in an answer to HEAD.
func withoutBody(e *image.Error, node Node) {
	switch e.Kind {
	case image.KindUnauthorized:
		e.Detail = fmt.Sprintf("node %d asks for an access key, or does not take this one", node.ID)
		e.WithHint("imgcluster status says which; an administrator makes a key with imgcluster key add")
	case image.KindForbidden:
		e.Detail = fmt.Sprintf("node %d says that this is not for this access key", node.ID)
		e.WithHint(access.RoleHint)
	default:
		e.Detail = fmt.Sprintf("node %d answers: %s", node.ID, strings.ReplaceAll(string(e.Kind), "-", " "))
		e.WithHint("see imgcluster status")
	}
}

// pause waits before the try after the given one: an exponential back-off with full jitter
// ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015), and never less than the node
// asked for.
func (c *Client) pause(ctx context.Context, attempt int, err error) error {
	wait := rand.N(c.backoff(attempt) + 1)
	var e *image.Error
	if errors.As(err, &e) {
		wait = max(wait, min(e.RetryAfter, retryAfterMax))
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.ctx.Done():
		return errClosed
	}
}

// backoff is the longest wait after the given try, counted from 1.
func (c *Client) backoff(attempt int) time.Duration {
	wait := c.o.BackoffMin
	for range attempt - 1 {
		if wait >= c.o.BackoffMax/2 {
			return c.o.BackoffMax
		}
		wait *= 2
	}
	return min(wait, c.o.BackoffMax)
}

// drain ends an answer so that its connection can be kept.
func drain(resp *http.Response) {
	io.CopyN(io.Discard, resp.Body, answerBytesMax) // best effort: a longer rest costs the connection
	resp.Body.Close()
}
