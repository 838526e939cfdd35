package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// TestWaiting checks what is reported of requests that take long, and when.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var reported []string
		began := time.Now()
		c, err := New(Options{Nodes: []Node{{1, "a:1"}}, Waiting: func(w Wait) {
			mu.Lock()
			defer mu.Unlock()
			reported = append(reported, fmt.Sprintf("%s/%s %v", time.Since(began), w.For, w.Err))
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		expect := func(want ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if strings.Join(reported, "\n") != strings.Join(want, "\n") {
				t.Errorf("reported %q, want %q", reported, want)
			}
			reported = nil
		}
		w := c.wait(nil)
		w.asked(Node{ID: 2})
		time.Sleep(4 * time.Second)
		expect()
		time.Sleep(time.Second)
		expect("5s/5s node 2 does not answer")
		time.Sleep(time.Second)
		second := c.wait(nil)
		time.Sleep(2 * time.Second)
		w.fail(failure{node: Node{ID: 2}, err: &url.Error{Op: "Get", URL: "http://x", Err: errTimeout}})
		w.asked(Node{ID: 3})
		time.Sleep(4 * time.Second) // that of the second falls between
		expect("10s/10s node 2: the node does not answer in time")
		w.touch()
		second.end()
		time.Sleep(5 * time.Second)
		expect("17s/5s node 2: the node does not answer in time")
		w.end()
		time.Sleep(time.Minute)
		expect()

		began = time.Now()
		p := &put{}
		w = c.wait(&p.sent)
		time.Sleep(time.Second / 2)
		for range 7 { // a slow line
			time.Sleep(time.Second)
			p.sent.Add(1)
		}
		time.Sleep(9 * time.Second)
		expect("13s/13s no node has answered yet")
		w.retry()
		for range 6 {
			time.Sleep(time.Second)
			p.sent.Add(1)
		}
		expect("18s/18s no node has answered yet")
		w.end()
	})
	var nobody *wait
	nobody.asked(Node{})
	nobody.fail(failure{})
	nobody.retry()
	nobody.touch()
	nobody.end()
}

// TestReadLimit: a read ends in time, with the most specific of the last failures. The limit is for the
// answer of a read: a change has none, nor has a body.
func TestReadLimit(t *testing.T) {
	const limit = 100 * time.Millisecond
	begun := make(chan struct{}, 9) // by a request that is not answered yet
	outlast := make(chan struct{})  // lets one that takes longer than the limit end
	release := make(chan struct{})
	f := newFleet(t, 3, Options{Attempts: 1000, ReadLimit: limit},
		func(_ *fleet, id int, w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/v1/images/alice/slow.png":
				begun <- struct{}{}
				<-outlast
				w.WriteHeader(http.StatusNoContent)
			case r.URL.Path == "/v1/images/alice/half.png":
				w.Header().Set("Content-Length", "3")
				http.NewResponseController(w).Flush()
				<-outlast
				w.Write([]byte("abc"))
			case r.URL.Path == "/v1/images/canceled":
				begun <- struct{}{}
				<-release
			case id == 1 && r.URL.Path != "/v1/images/silent":
				refuse(w, image.Errorf(image.KindNoQuorum, "no majority").WithHint("see status"))
			default:
				<-release
			}
		})
	defer close(release)
	// expectGivenUp makes a read that nobody answers, or one node refuses, until the limit.
	expectGivenUp := func(read func() error) error {
		t.Helper()
		began := time.Now()
		err := read()
		expectKind(t, err, image.KindNoQuorum)
		if took := time.Since(began); took < limit {
			t.Errorf("given up after %v: %v", took, err)
		}
		return err
	}
	list := func(user string) func() error {
		return func() error { return second(f.List(t.Context(), user, wire.ListQuery{})) }
	}
	err := expectGivenUp(list("alice"))
	if errors.Is(err, ErrNobodyAnswers) || !strings.Contains(err.Error(), limit.String()) {
		t.Errorf("node 1 refused every attempt for %v: %v", limit, err)
	}
	err = expectGivenUp(func() error { return second(f.Head(t.Context(), "alice", "a.png")) })
	if errors.Is(err, ErrNobodyAnswers) {
		t.Errorf("node 1 refused every attempt: %v", err)
	}
	if err = expectGivenUp(list("silent")); !errors.Is(err, ErrNobodyAnswers) {
		t.Errorf("no node answered: %v", err)
	}
	deleted := make(chan error)
	go func() { deleted <- f.Delete(t.Context(), "alice", "slow.png", "") }()
	<-begun
	expectGivenUp(list("silent"))
	outlast <- struct{}{}
	if err := <-deleted; err != nil {
		t.Errorf("the limit counts for a change: %v", err)
	}

	obj, err := f.Get(t.Context(), "alice", "half.png", false)
	if err != nil {
		t.Fatal(err)
	}
	defer obj.Body.Close()
	expectGivenUp(list("silent"))
	outlast <- struct{}{}
	if b, err := io.ReadAll(obj.Body); string(b) != "abc" || err != nil {
		t.Errorf("the limit counts for a body: %q, %v", b, err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-begun
		cancel()
	}()
	if _, err = f.List(ctx, "canceled", wire.ListQuery{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a canceled read: %v", err)
	}
}
