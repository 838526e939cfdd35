package cluster

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/config"
)

// TestPausedPeer asks a peer that takes connections and says nothing, as one that is stopped (SIGSTOP) does:
// its kernel goes on. Who waits for it would not look at another copy, nor repair any.
func TestPausedPeer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tr := transport(time.Second, 0, readBufferBytes)
	defer tr.(refuseRedirects).CloseIdleConnections()
	p := &peers{stall: 50 * time.Millisecond, addr: map[image.NodeID]string{2: l.Addr().String()}, http: &http.Client{Transport: tr}}
	id := image.NewID()
	for what, ask := range map[string]func(context.Context) error{
		"the length of a copy": func(ctx context.Context) error {
			_, err := p.copyBytes(ctx, 2, id, 1)
			return err
		},
		"a part of a copy": func(ctx context.Context) error {
			_, err := p.openCopy(ctx, 2, id, 1, 0, 10)
			return err
		},
		"to look at a copy": func(ctx context.Context) error {
			return p.suspect(ctx, 2, &image.Record{User: "alice", Name: "a.png", ID: id})
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if err := ask(ctx); err == nil || ctx.Err() != nil {
			t.Errorf("asked for %s: %v, after more than %v", what, err, p.stall)
		}
		cancel()
	}
}

// TestSilence counts ticks: a process that was stopped gets one for all that it missed, and must not take
// the others for gone before it could read what they said.
func TestSilence(t *testing.T) {
	var s silence
	tick, ended, over := make(chan time.Time), make(chan struct{}), make(chan struct{})
	go func() {
		s.watch(t.Context(), tick, func() { close(ended) })
		close(over)
	}()
	ticks := func(n int) {
		for range n {
			select {
			case tick <- time.Now():
			case <-over:
				t.Fatal("it is over too early")
			}
		}
	}
	ticks(silenceTicks - 1)
	s.ticks.Store(0)
	ticks(silenceTicks - 1)
	select {
	case <-ended:
		t.Fatal("silent though it was heard")
	default:
	}
	ticks(1)
	<-over
	<-ended
}

// TestAwaitStart sends requests to a node that starts. A shard that it serves already, as the others know, is
// given uploads: these wait until it is ready, and what else comes is refused at once.
func TestAwaitStart(t *testing.T) {
	n := &Node{cfg: config.Default(), log: &replicated{}, shards: []uint64{2}, current: map[uint64]bool{}}
	const starts, leaderless = "is starting", "has no leader" // without a log there never is one
	await := func(name, want string) {
		t.Helper()
		if err := n.Await(t.Context(), "alice", name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want that it %s", name, err, want)
		}
	}
	await("a.png", starts)
	n.current[2] = true
	await("", starts)
	time.AfterFunc(50*time.Millisecond, func() { n.ready.Store(true) })
	await("a.png", leaderless)
}
