package client

import (
	"errors"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

const (
	waitEvery = 5 * time.Second // between two calls of Options.Waiting, at least, and before the first
	waitLook  = time.Second     // how often that is looked at
)

var (
	errUnanswered = errors.New("no node has answered yet")
	errLimit      = errors.New("the time for a read is over")
)

// Wait tells of a request that has no answer yet.
type Wait struct {
	For time.Duration // since it began, or since the node last said something
	Err error         // what failed last, or who is waited for; never nil
}

// wait tells Options.Waiting of one request until end. A nil one, of a client without that, tells nobody.
type wait struct {
	c    *Client
	sent *atomic.Int64 // of an upload: no news while it grows; may be nil

	mu      sync.Mutex
	since   time.Time // see Wait.For
	moved   time.Time // the last news, bytes that were sent among them
	err     error
	failed  bool // err is a failure
	retried bool // what is sent is sent again
	before  int64
	ended   bool
	timer   *time.Timer
}

func (c *Client) wait(sent *atomic.Int64) *wait {
	if c.o.Waiting == nil {
		return nil
	}
	now := time.Now()
	w := &wait{c: c, sent: sent, since: now, moved: now, err: errUnanswered}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(waitLook, w.tell)
	return w
}

func (w *wait) tell() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	w.timer.Reset(waitLook)
	now := time.Now()
	if w.sent != nil && !w.retried {
		if n := w.sent.Load(); n != w.before {
			w.before, w.moved = n, now
		}
	}
	if now.Sub(w.moved) < waitEvery {
		return
	}
	w.c.waitMu.Lock()
	defer w.c.waitMu.Unlock()
	if now.Sub(w.c.waited) >= waitEvery {
		w.c.waited = now
		w.c.o.Waiting(Wait{For: now.Sub(w.since), Err: w.err})
	}
}

// asks notes which node is asked now.
func (w *wait) asks(n Node) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.failed {
		w.err = fmt.Errorf("node %d does not answer", n.ID)
	}
}

// fail notes why a node did not serve the request.
func (w *wait) fail(f failure) {
	if w == nil {
		return
	}
	err := f.err
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err, w.failed = fmt.Errorf("node %d: %w", f.node.ID, err), true
}

// again notes that the request is tried again.
func (w *wait) again() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.retried = true
}

// touch notes that the node has said something.
func (w *wait) touch() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since = time.Now()
	w.moved = w.since
}

// end returns when nothing is told any more.
func (w *wait) end() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.timer.Stop()
}
