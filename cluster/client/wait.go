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
	waitCheck = time.Second     // how often a request is checked for it
)

var errUnanswered = errors.New("no node has answered yet")

// Wait describes a request that has no answer yet.
type Wait struct {
	For time.Duration // since it began, or since the node last sent something
	Err error         // what failed last, or which node is asked; never nil
}

// wait reports one request to Options.Waiting until end. A nil one, of a client without that, does nothing.
type wait struct {
	c    *Client
	sent *atomic.Int64 // of an upload: nothing is reported while it grows; may be nil

	mu      sync.Mutex
	since   time.Time // see Wait.For
	moved   time.Time // the last sign of progress, bytes that were sent among them
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
	w.timer = time.AfterFunc(waitCheck, w.report)
	return w
}

func (w *wait) report() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	w.timer.Reset(waitCheck)
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

// asked records which node is asked now.
func (w *wait) asked(n Node) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.failed {
		w.err = fmt.Errorf("node %d does not answer", n.ID)
	}
}

// fail records why a node did not serve the request.
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

// retry records that the request is tried again.
func (w *wait) retry() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.retried = true
}

// touch records that the node has sent something.
func (w *wait) touch() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since = time.Now()
	w.moved = w.since
}

// end returns when nothing is reported any more.
func (w *wait) end() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.timer.Stop()
}
