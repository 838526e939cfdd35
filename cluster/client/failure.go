package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"imgcluster/cluster/image"
)

// retryAfterMax bounds what a node may ask the client to wait.
const retryAfterMax = 30 * time.Second

// failure is why one node did not serve a request.
type failure struct {
	node   Node
	status int // 0: the node did not answer
	err    error
}

// temporary tells whether the same request may succeed later or at another node.
func (f failure) temporary() bool {
	switch {
	case f.status == 0:
		return image.KindOf(f.err) != image.KindInvalid // a body that cannot be sent stays so
	}
	switch image.KindOf(f.err) {
	case image.KindIncomplete, image.KindStale, image.KindMisplaced: // the connection broke; the upload or the shard moved
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

// refused tells whether the node said that this request is wrong.
func (f failure) refused() bool { return !f.temporary() && f.status < 500 }

// verdict sums up the failures of all nodes asked: the error to report, and whether another try
// makes sense. A refusal outweighs everything: all nodes would say the same.
func (c *Client) verdict(failures []failure) (err error, retry bool) {
	var answered error
	for _, f := range failures {
		if f.refused() {
			return f.err, false
		}
		if f.temporary() {
			retry = true
		}
		if f.status != 0 && (answered == nil || f.temporary()) {
			answered = f.err
		}
	}
	if answered != nil {
		return answered, retry
	}
	return c.nobodyAnswers(failures), retry
}

// NobodyAnswers returns the error of a request that reached no node, with the causes that are known.
func (c *Client) NobodyAnswers(detail string, causes ...error) error {
	e := &image.Error{Kind: image.KindNoQuorum, Detail: detail, Err: errors.Join(append(causes, ErrNobodyAnswers)...)}
	return e.WithHint(c.o.StartHint)
}

// nobodyAnswers names the nodes in the order of their addresses: all such failures have one text.
func (c *Client) nobodyAnswers(failures []failure) error {
	failures = slices.SortedFunc(slices.Values(failures), func(a, b failure) int { return strings.Compare(a.node.Addr, b.node.Addr) })
	addrs := make([]string, len(failures))
	causes := make([]error, len(failures))
	for i, f := range failures {
		addrs[i] = f.node.Addr
		causes[i] = f.err
	}
	return c.NobodyAnswers("no node answers at "+strings.Join(addrs, ", "), causes...)
}

// problem reads the error that a node answered with.
func problem(node Node, resp *http.Response) failure {
	f := failure{node: node, status: resp.StatusCode}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, answerBytesMax)) // what came is enough
	var p image.Problem
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch kind := kindOfStatus(resp.StatusCode); {
	case media == "application/problem+json" && resp.Request.Method == http.MethodHead: // has no body
		p = image.Problem{
			Code: kind, Detail: fmt.Sprintf("node %d answers: %s", node.ID, strings.ReplaceAll(string(kind), "-", " ")), Hint: "see imgcluster status",
		}
	case media != "application/problem+json" || json.Unmarshal(text, &p) != nil || p.Code == "":
		p = image.Problem{
			Code:   kind,
			Detail: fmt.Sprintf("node %d answered %q", node.ID, resp.Status),
			Hint:   "check that " + node.Addr + " is a node of the cluster",
		}
	}
	e := p.Err()
	e.RetryAfter = max(e.RetryAfter, retryAfter(resp.Header))
	f.err = e
	return f
}

// retryAfter reads the header's form in seconds, the one that nodes use.
func retryAfter(h http.Header) time.Duration {
	s, err := strconv.ParseUint(h.Get("Retry-After"), 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(s) * time.Second
}

// kindOfStatus is for answers that do not come from a node's own code, such as a proxy's.
func kindOfStatus(status int) image.Kind {
	for _, k := range []image.Kind{
		image.KindNotFound, image.KindConflict, image.KindLengthRequired, image.KindExists, image.KindTooLarge,
		image.KindOverload, image.KindNoQuorum, image.KindDiskFull,
	} {
		if k.Status() == status {
			return k
		}
	}
	if status >= 400 && status < 500 {
		return image.KindInvalid
	}
	return image.KindInternal
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
	case <-c.open.Done():
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
