package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/access"
	"imgcluster/cluster/clustertest/poll"
	"imgcluster/cluster/image"
	"imgcluster/cluster/peerconn"
	"imgcluster/cluster/wire"
	"imgcluster/crypto"
)

// of returns the peers of node 1: node 2 at an address.
func of(t *testing.T, addr string, stall time.Duration) *Set {
	s := New(Options{
		Self: 1, Every: time.Millisecond, Silence: time.Minute, Stall: stall,
		Dialer: peerconn.Dialer{
			Credentials: credentials(t, "test", 1), Protocol: access.ProtocolHTTP, Timeout: time.Second,
			Unanswered: time.Minute,
		},
		Logger: zap.NewNop(), Changed: func() {},
		Works: func() bool { return true }, Full: func() bool { return false },
		Message: func(image.NodeID, []byte) {},
	})
	s.Update(map[image.NodeID]Addresses{1: {API: "a:1", Raft: "127.0.0.1:1"}, 2: {API: "a:2", Raft: addr}})
	return s
}

// credentials are those of a node of a cluster of this name.
func credentials(t *testing.T, cluster string, id image.NodeID) peerconn.Credentials {
	t.Helper()
	master, err := crypto.MasterKeyFromEnv(
		"imgcluster-master-key-v1 f5fac8af2578f500 t07xfydFS4K+p5aN+DoOfwMzq1jI34v53IKaZ6+7L+U=")
	if err != nil {
		t.Fatal(err)
	}
	a, err := access.NewAuthority(master, cluster)
	if err != nil {
		t.Fatal(err)
	}
	return peerconn.Credentials{Authority: a, Own: a.Node(id, "127.0.0.1")}
}

// serve has a node serve others, and returns where.
func serve(t *testing.T, own peerconn.Credentials, h http.HandlerFunc) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := peerconn.New(l, own, zap.NewNop())
	server := &http.Server{Handler: h, ErrorLog: zap.NewStdLog(zap.NewNop())}
	done := make(chan struct{})
	go func() {
		server.Serve(port.Listen(access.ProtocolHTTP, 10))
		close(done)
	}()
	port.Start()
	t.Cleanup(func() {
		server.Close()
		<-done
		port.Close()
	})
	return l.Addr().String()
}

// TestWrongNode calls a node that is not the one at its address: of another cluster, or with another ID. It
// gets nothing of the request, and the caller learns why.
func TestWrongNode(t *testing.T) {
	for what, own := range map[string]peerconn.Credentials{
		"another cluster": credentials(t, "other", 2), "another node": credentials(t, "test", 3),
	} {
		addr := serve(t, own, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s got %s", what, r.URL) })
		p := of(t, addr, time.Minute)
		_, err := p.Post(t.Context(), 2, wire.HelloPath, []byte("{}"))
		var e *image.Error
		if !errors.As(err, &e) || e.Kind != image.KindInvalid || e.Hint() == "" || Unreachable(err) ||
			!errors.As(err, new(*access.CertificateError)) {
			t.Errorf("%s: %v", what, err)
		}
		p.Close()
	}
}

// TestPausedPeer asks a peer that accepts connections and does not answer, like a process that is paused
// (SIGSTOP). Who waits for it would not read another copy, nor repair any.
func TestPausedPeer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const stall = 50 * time.Millisecond
	p := of(t, l.Addr().String(), stall)
	defer p.Close()
	id := image.NewID()
	file := image.FileID{Image: id, Shard: 2, Attempt: image.NewAttempt()}
	for what, ask := range map[string]func(context.Context) error{
		"the length of a copy": func(ctx context.Context) error {
			_, err := p.CopyBytes(ctx, 2, file)
			return err
		},
		"a part of a copy": func(ctx context.Context) error {
			_, err := p.OpenCopy(ctx, 2, file, 0, 10)
			return err
		},
		"to check a copy": func(ctx context.Context) error {
			return p.Suspect(ctx, 2, &image.Record{User: "alice", Name: "a.png", ID: id})
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if err := ask(ctx); err == nil || ctx.Err() != nil {
			t.Errorf("asked for %s: %v, after more than %v", what, err, stall)
		}
		cancel()
	}
}

// TestSilence counts ticks: a process that was stopped gets one for all that it missed, and must not take
// the others for down before it could read what they sent.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s silence
		tick := make(chan time.Time)
		ended := false
		go s.watch(t.Context(), tick, func() { ended = true })
		ticks := func(n int) {
			for range n {
				tick <- time.Now()
				synctest.Wait() // until it is counted
			}
		}
		ticks(silenceTicks - 1)
		s.ticks.Store(0)
		ticks(silenceTicks - 1)
		if ended {
			t.Fatal("silent though it was heard")
		}
		ticks(1)
		if !ended {
			t.Fatal("not silent")
		}
	})
}

// TestRedirectRefused: a node's requests, and those that it forwards, are sent to no other address than their
// own, with a body or without.
func TestRedirectRefused(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s was sent elsewhere", r.Method, r.URL)
	}))
	defer elsewhere.Close()
	status := 0
	addr := serve(t, credentials(t, "test", 2), func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, status)
	})
	p := of(t, addr, 5*time.Second)
	defer p.Close()
	id := image.NewID()
	file := image.FileID{Image: id, Shard: 2, Attempt: image.NewAttempt()}
	asks := map[string]func() error{
		"post": func() error { _, err := p.Post(t.Context(), 2, "/internal/v1/hello", []byte("{}")); return err },
		"get":  func() error { _, err := p.get(t.Context(), 2, "/internal/v1/status", ""); return err },
		"head": func() error { _, err := p.CopyBytes(t.Context(), 2, file); return err },
		"put": func() error {
			return p.Send(t.Context(), 2, image.Request{User: "a", Name: "b", ID: id, Size: 1}, strings.NewReader("x"))
		},
		"forwarded": func() error {
			req := httptest.NewRequest(http.MethodGet, "https://"+wire.NodeHost(2)+"/v1/images/a/b", nil)
			req.RequestURI = ""
			_, err := p.Transport().RoundTrip(req)
			return err
		},
	}
	for _, status = range []int{
		http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect,
	} {
		for name, ask := range asks {
			err := ask()
			var e *image.Error
			if !errors.As(err, &e) || e.Kind != image.KindInvalid || e.Hint() == "" || Unreachable(err) {
				t.Errorf("%s, %d: %v", name, status, err)
			}
		}
	}
	status = http.StatusNotModified // not a redirect
	if err := asks["forwarded"](); err != nil {
		t.Error(err)
	}
}

// TestRelayedHeader: what a node that stores a relayed upload gets to know of it is what its client asked
// for. When the relay dies, a leader that has not heard of the upload commits it as this node says.
func TestRelayedHeader(t *testing.T) {
	up := image.Request{
		ID: image.NewID(), User: "a", Name: "b", Size: 1, Type: "image/png", Broadcast: []image.NodeID{2},
		If:         image.Conditions{NoneMatch: image.Tags{image.AnyTag}, Match: image.Tags{`"c"`}},
		WantDigest: true, Relayed: true, Digest: &image.Digest{1},
	}
	seen := false
	addr := serve(t, credentials(t, "test", 2), func(_ http.ResponseWriter, r *http.Request) {
		seen = true
		got := image.Request{
			User: "a", Name: "b", Size: r.ContentLength, Type: r.Header.Get("Content-Type"),
			WantDigest: wire.WantsDigest(r.Header), Relayed: wire.Relayed(r.Header),
		}
		var errs [4]error
		got.ID, errs[0] = wire.UploadID(r.Header)
		got.Broadcast, errs[1] = wire.Broadcast(r.Header, 2)
		got.If, errs[2] = wire.ParseConditions(r.Header)
		got.Digest, errs[3] = wire.ParseDigests(r.Header)
		if err := errors.Join(errs[:]...); err != nil || !reflect.DeepEqual(got, up) {
			t.Errorf("got %+v (%v)\nwant %+v", got, err, up)
		}
	})
	p := of(t, addr, 5*time.Second)
	defer p.Close()
	if err := p.Send(t.Context(), 2, up, strings.NewReader("x")); err != nil || !seen {
		t.Errorf("sent: %v, %v", seen, err)
	}
}

// TestStream follows a peer from its first figures over a full disk and a shutdown to its end, and to its
// removal.
func TestStream(t *testing.T) {
	figures := make(chan wire.NodeStatus)
	addr := serve(t, credentials(t, "test", 2), func(w http.ResponseWriter, _ *http.Request) {
		for status := range figures {
			if status.ID == 0 { // its process ends
				return
			}
			enc := json.NewEncoder(w)
			enc.Encode(wire.StatusLine{Status: &status})
			enc.Encode(wire.StatusLine{Message: []byte(`"heard"`)})
			w.(http.Flusher).Flush()
		}
	})
	defer close(figures)
	p := of(t, addr, time.Second)
	defer p.Close()
	var changes atomic.Int32
	p.o.Changed = func() { changes.Add(1) }
	heard := make(chan string, 10)
	p.o.Message = func(from image.NodeID, m []byte) { heard <- fmt.Sprint(from, string(m)) }
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		p.Watch(ctx)
		close(done)
	}()
	defer func() {
		cancel()
		<-done
	}()

	const alone, both = 1, 2
	expect := func(what string, status wire.NodeStatus, up, live, room int) {
		t.Helper()
		before := changes.Load()
		figures <- status
		poll.Until(t, 5*time.Second, what, func() bool { return changes.Load() > before })
		if len(p.Up()) != up || len(p.Live()) != live || len(p.Room()) != room {
			t.Errorf("%s: up %v, live %v, room %v", what, p.Up(), p.Live(), p.Room())
		}
	}
	upload := image.NewID()
	first := wire.NodeStatus{
		ID: 2, State: wire.NodeUp, Serves: []uint64{1, 3}, Incarnation: "i", Receiving: []image.ID{upload},
		Time: time.Now().Add(-time.Minute),
	}
	expect("up", first, both, both, both)
	if !slices.Equal(p.Serves(2, "i"), []uint64{1, 3}) || p.Serves(2, "j") != nil ||
		!p.Receives(2, upload) || p.Receives(2, image.NewID()) {
		t.Errorf("serves %v, receives %v", p.Serves(2, "i"), p.Receives(2, upload))
	}
	if off := p.Status(2).ClockOffS; off < 60 || off > 90 {
		t.Errorf("its clock is a minute behind, and said to be %v s off", off)
	}
	if m := <-heard; m != `2"heard"` {
		t.Errorf("message %s", m)
	}
	expect("full", wire.NodeStatus{
		ID: 2, State: wire.NodeUp, DiskFull: true, Time: time.Now().Add(time.Hour),
	}, both, both, alone)
	if off := p.Status(2).ClockOffS; off < 3500 || off > 3600 {
		t.Errorf("its clock is an hour ahead, and said to be %v s off", off)
	}
	degraded := wire.NodeStatus{ID: 2, State: wire.NodeUp, Problem: "its disk failed"}
	expect("degraded", degraded, both, alone, alone)
	expect("recovered", wire.NodeStatus{ID: 2, State: wire.NodeUp}, both, both, both)
	expect("draining", wire.NodeStatus{ID: 2, State: wire.NodeDraining}, both, alone, alone)
	expect("down", wire.NodeStatus{}, alone, alone, alone)
	if s := p.Status(2); s.State != wire.NodeDown || s.ID != 2 || p.Serves(2, "i") != nil {
		t.Errorf("a peer that is down: %+v", s)
	}
	if down := p.DownFor(0); !slices.Equal(down, []image.NodeID{2}) || p.DownFor(time.Hour) != nil {
		t.Errorf("down: %v", down)
	}
	if p.Status(2).API != "a:2" || p.Address(2) != addr {
		t.Errorf("at %s and %s", p.Status(2).API, p.Address(2))
	}
	p.Update(map[image.NodeID]Addresses{1: {Raft: "127.0.0.1:1"}})
	if p.IDs() != nil || p.Address(2) != "" {
		t.Errorf("removed, and still there: %v", p.IDs())
	}
}

// TestMail: the newest stream to a peer gets what this node has to say to it. Messages that nobody reads are
// lost, and hold nobody up.
func TestMail(t *testing.T) {
	p := of(t, "127.0.0.1:1", time.Second)
	defer p.Close()
	p.Mail(2, []byte("nobody reads"))
	first, release := p.Messages(2)
	second, releaseSecond := p.Messages(2)
	release() // late: the second has its place
	for i := range mailMax + 1 {
		p.Mail(2, []byte(strconv.Itoa(i)))
	}
	p.Mail(3, []byte("to another one"))
	if len(first) != 0 || len(second) != mailMax {
		t.Fatalf("%d and %d messages", len(first), len(second))
	}
	if m := <-second; string(m) != "0" {
		t.Errorf("the first is %s", m)
	}
	releaseSecond()
	p.Mail(2, []byte("nobody reads"))
	if len(second) != mailMax-1 {
		t.Errorf("%d messages for a stream that has ended", len(second))
	}
}
