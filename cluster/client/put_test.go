package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"imgcluster/cluster/image"
)

func TestBroadcastReachesEveryNode(t *testing.T) {
	arrived := barrier(3)
	f := newFleet(t, 3, Options{}, func(f *fleet, id int, w http.ResponseWriter, r *http.Request) {
		arrived()
		accept(f, id, w, r)
	})
	data := noise(3 << 20)
	up := upload(data)
	up.ID = image.NewID()
	up.IfNoneMatch = true
	digest := image.Digest(sha256.Sum256(data))
	up.Digest = &digest
	res, err := f.Put(t.Context(), up)
	if err != nil {
		t.Fatal(err)
	}
	<-res.Done
	if res.Receipt.Version != 7 || res.Attempts != 1 || res.Node == 0 ||
		res.SentBytes() != 3*int64(len(data)) {
		t.Errorf("result %+v, %d bytes sent", res, res.SentBytes())
	}
	got := f.received()
	if len(got) != 3 {
		t.Fatalf("%d nodes got the upload", len(got))
	}
	for _, r := range got {
		if !bytes.Equal(r.body, data) {
			t.Errorf("node %d got other bytes", r.node)
		}
		for key, want := range map[string]string{
			"Idempotency-Key": up.ID.String(), "Imgcluster-Broadcast": "1,2,3", "If-None-Match": "*",
			"Content-Digest": "sha-256=:" + base64.StdEncoding.EncodeToString(digest[:]) + ":",
		} {
			if r.header.Get(key) != want {
				t.Errorf("node %d got %s: %q, want %q", r.node, key, r.header.Get(key), want)
			}
		}
	}
}

// The first receipt ends Put; the others end in their own time and keep their connections.
func TestFirstReceiptWins(t *testing.T) {
	t.Parallel()
	held := make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	defer release()
	arrived := barrier(3)
	f := newFleet(t, 3, Options{StragglerTimeout: time.Minute},
		func(f *fleet, id int, w http.ResponseWriter, r *http.Request) {
			r.Body.Read(make([]byte, 1))
			arrived()
			if id != 2 {
				<-held // the rest of the body stays in the connection
			}
			io.Copy(io.Discard, r.Body)
			receipt(w, r.ContentLength)
		})
	data := make([]byte, 16<<20) // more than the sockets hold
	up := upload(data)
	res, err := f.Put(t.Context(), up)
	if err != nil || res.Node != 2 {
		t.Fatalf("node %d answered, %v", res.Node, err)
	}
	select {
	case <-res.Done:
		t.Fatal("Done is closed while two nodes are still sent the body")
	default:
	}
	release()
	<-res.Done
	clear(data) // with -race: nothing reads it any more
	before := f.conns.Load()
	if res, err = f.Put(t.Context(), up); err != nil {
		t.Fatal(err)
	}
	<-res.Done
	if before != 3 || f.conns.Load() != 3 {
		t.Errorf("%d connections after one upload and %d after two, want 3", before, f.conns.Load())
	}
}

func TestStragglerIsCut(t *testing.T) {
	held := make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	defer release()
	f := newFleet(t, 2, Options{StragglerTimeout: 5 * time.Millisecond},
		func(f *fleet, id int, w http.ResponseWriter, r *http.Request) {
			if id == 1 {
				accept(f, id, w, r)
				return
			}
			r.Body.Read(make([]byte, 1))
			<-held
			io.Copy(io.Discard, r.Body)
		})
	data := make([]byte, 16<<20)
	res, err := f.Put(t.Context(), upload(data))
	if err != nil {
		t.Fatal(err)
	}
	<-res.Done
	clear(data)
	if sent := res.SentBytes(); sent >= 2*int64(len(data)) || sent < int64(len(data)) {
		t.Errorf("%d bytes sent", sent)
	}
}

func TestDeadNodeDoesNotMatter(t *testing.T) {
	f := newFleet(t, 3, Options{}, accept)
	f.servers[0].Close()
	data := noise(1 << 20)
	res, err := f.Put(t.Context(), upload(data))
	if err != nil {
		t.Fatal(err)
	}
	<-res.Done
	if res.Attempts != 1 || res.SentBytes() > 2*int64(len(data)) {
		t.Errorf("%d attempts, %d bytes sent", res.Attempts, res.SentBytes())
	}
}

func TestNobodyAnswers(t *testing.T) {
	for _, d := range []Delivery{Broadcast, Relay} {
		f := newFleet(t, 3, Options{Delivery: d, Attempts: 2}, accept)
		for _, s := range f.servers {
			s.Close()
		}
		res, err := f.Put(t.Context(), upload(noise(1000)))
		expectKind(t, err, image.KindNoQuorum)
		if !errors.Is(err, ErrNobodyAnswers) || res.SentBytes() != 0 {
			t.Errorf("%v, %d bytes sent", err, res.SentBytes())
		}
		<-res.Done
		if want := map[Delivery]int{Broadcast: 2, Relay: 6}[d]; res.Attempts != want {
			t.Errorf("%s: %d attempts, want %d", d, res.Attempts, want)
		}
		_, err = f.Cluster(t.Context())
		expectKind(t, err, image.KindNoQuorum)
		if _, err = f.Get(t.Context(), "alice", "a.png", false); !errors.Is(err, ErrNobodyAnswers) {
			t.Errorf("Get: %v", err)
		}
	}
}

// What fails for a while is tried again under the same upload ID; what is refused is not.
func TestRetries(t *testing.T) {
	tests := []struct {
		name     string
		fail     func(w http.ResponseWriter, r *http.Request) // the first answer of each node
		attempts int
		kind     image.Kind
	}{
		{"no quorum", say(image.Errorf(image.KindNoQuorum, "no leader")), 2, ""},
		{"overload", say(image.Errorf(image.KindOverload, "busy")), 2, ""},
		{"stale", say(image.Errorf(image.KindStale, "moved")), 2, ""},
		{"fault", say(errors.New("x")), 2, ""},
		{"cut", cut, 2, ""},
		{"no receipt", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "welcome") }, 2, ""},
		{"receipt for another size", func(w http.ResponseWriter, _ *http.Request) { receipt(w, 5) }, 2, ""},
		{
			"conflict", say(image.Errorf(image.KindConflict, "other bytes").WithHint("h")), 1,
			image.KindConflict,
		},
		{"too large", say(image.Errorf(image.KindTooLarge, "large").WithHint("h")), 1, image.KindTooLarge},
		{"disk full", say(image.Errorf(image.KindDiskFull, "full").WithHint("h")), 1, image.KindDiskFull},
		{
			"redirect",
			func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) }, 1,
			image.KindInternal,
		},
		{"proxy", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, strings.Repeat("go away ", 1<<17), http.StatusForbidden)
		}, 1, image.KindForbidden},
	}
	for _, d := range []Delivery{Broadcast, Relay} {
		for _, test := range tests {
			t.Run(string(d)+" "+test.name, func(t *testing.T) {
				var asked [4]atomic.Int64
				f := newFleet(t, 3, Options{Delivery: d},
					func(f *fleet, id int, w http.ResponseWriter, r *http.Request) {
						if r.Method == http.MethodGet { // after a failure: which nodes have the shard by now
							w.WriteHeader(http.StatusServiceUnavailable)
							return
						}
						if asked[id].Add(1) > 1 {
							accept(f, id, w, r)
							return
						}
						if test.name != "cut" {
							f.receive(id, r)
						}
						test.fail(w, r)
					})
				res, err := f.Put(t.Context(), upload(noise(100<<10)))
				<-res.Done
				if test.kind != "" {
					expectKind(t, err, test.kind)
				} else if err != nil {
					t.Fatal(err)
				}
				if d == Relay &&
					(test.kind == "" || test.kind == image.KindDiskFull || test.kind == image.KindInternal) {
					return // one attempt a node; counted in TestRelay
				}
				if res.Attempts != test.attempts {
					t.Errorf("%d attempts, want %d", res.Attempts, test.attempts)
				}
				for _, r := range f.received() {
					if id := r.header.Get("Idempotency-Key"); id == "" ||
						id != f.received()[0].header.Get("Idempotency-Key") {
						t.Errorf("node %d got the upload ID %q", r.node, id)
					}
				}
			})
		}
	}
}

func say(err error) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { refuse(w, err) }
}

func cut(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// One receipt outweighs a refusal and a fault.
func TestReceiptOutweighsRefusal(t *testing.T) {
	others := make(chan struct{}, 2)
	f := newFleet(t, 3, Options{StragglerTimeout: time.Minute},
		func(f *fleet, id int, w http.ResponseWriter, r *http.Request) {
			switch f.receive(id, r); id {
			case 1:
				refuse(w, image.Errorf(image.KindDiskFull, "full"))
				others <- struct{}{}
			case 2:
				refuse(w, image.Errorf(image.KindConflict, "odd"))
				others <- struct{}{}
			case 3:
				<-others
				<-others
				receipt(w, r.ContentLength)
			}
		})
	res, err := f.Put(t.Context(), upload(noise(1000)))
	if err != nil || res.Node != 3 || res.Attempts != 1 {
		t.Errorf("node %d, %d attempts, %v", res.Node, res.Attempts, err)
	}
	<-res.Done
}

func TestRelay(t *testing.T) {
	f := newFleet(t, 3, Options{Delivery: Relay}, accept)
	for i, dead := range []int{0, 0, 3} { // nodes 1, 2, and 1 in place of 3
		if dead > 0 {
			f.servers[dead-1].Close()
		}
		res, err := f.Put(t.Context(), upload(noise(1000)))
		if err != nil {
			t.Fatal(err)
		}
		<-res.Done
		wantNode := i%2 + 1
		wantAttempts := 1 + i/2
		if int(res.Node) != wantNode || res.Attempts != wantAttempts || res.SentBytes() != 1000 {
			t.Errorf("upload %d: node %d, %d attempts, %d bytes", i, res.Node, res.Attempts, res.SentBytes())
		}
	}
	for _, r := range f.received() {
		if r.header.Get("Imgcluster-Broadcast") != "" {
			t.Error("a relayed upload has the header of a broadcast")
		}
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{}, 3)
	release := make(chan struct{})
	f := newFleet(t, 3, Options{}, func(f *fleet, _ int, _ http.ResponseWriter, r *http.Request) {
		r.Body.Read(make([]byte, 1))
		arrived <- struct{}{}
		<-release
	})
	defer close(release)
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	go func() {
		for range 3 {
			<-arrived
		}
		cancel(enough)
	}()
	data := make([]byte, 16<<20)
	res, err := f.Put(ctx, upload(data))
	if !errors.Is(err, enough) {
		t.Errorf("%v", err)
	}
	<-res.Done
	clear(data)

	f.Close()
	if _, err := f.Put(t.Context(), upload(data)); err == nil {
		t.Error("a closed client sends")
	}
}

// A node that takes nothing is given up.
func TestStalledNode(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	f := newFleet(t, 1, Options{Attempts: 1, ResponseTimeout: 20 * time.Millisecond},
		func(_ *fleet, _ int, _ http.ResponseWriter, r *http.Request) {
			<-release
		})
	defer close(release)
	for _, size := range []int{100, 16 << 20} { // stalls before the answer, and in the body
		res, err := f.Put(t.Context(), upload(make([]byte, size)))
		expectKind(t, err, image.KindNoQuorum)
		<-res.Done
	}
}

// closer counts the readers that are open.
type closer struct {
	io.Reader
	open *atomic.Int64
}

func (c closer) Close() error { c.open.Add(-1); return nil }

func TestBodies(t *testing.T) {
	data := noise(1<<20 + 17)
	broken := errors.New("disk on fire")
	tests := []struct {
		name string
		r    func() io.Reader
		ok   bool
	}{
		{"memory", func() io.Reader { return bytes.NewReader(data) }, true},
		{
			"file",
			func() io.Reader { return io.NewSectionReader(bytes.NewReader(data), 0, int64(len(data))) }, true,
		},
		{"other", func() io.Reader { return bytes.NewBuffer(data) }, true},
		{"short memory", func() io.Reader { return bytes.NewReader(data[1:]) }, false},
		{"short", func() io.Reader { return bytes.NewBuffer(data[1:]) }, false},
		{"long memory", func() io.Reader { return bytes.NewReader(append([]byte{1}, data...)) }, false},
		{
			"long", func() io.Reader { return io.MultiReader(bytes.NewReader(data), strings.NewReader("x")) },
			false,
		},
		{"empty", func() io.Reader { return strings.NewReader("") }, false},
		{
			"broken",
			func() io.Reader { return io.MultiReader(bytes.NewReader(data[:5000]), iotest.ErrReader(broken)) },
			false,
		},
		{
			"broken at the end",
			func() io.Reader { return io.MultiReader(bytes.NewReader(data), iotest.ErrReader(broken)) }, false,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, 3, Options{}, accept)
			var open atomic.Int64
			up := upload(data)
			up.Body = func() io.Reader {
				r := test.r()
				if _, ok := r.(*bytes.Reader); ok {
					return r // is not counted
				}
				open.Add(1)
				return closer{r, &open}
			}
			res, err := f.Put(t.Context(), up)
			<-res.Done
			if test.ok && err != nil {
				t.Error(err)
			}
			if !test.ok {
				expectKind(t, err, image.KindInvalid)
			}
			if open.Load() != 0 {
				t.Errorf("%d readers are left open", open.Load())
			}
			for _, s := range f.servers {
				s.Close() // waits for the nodes
			}
			for _, r := range f.received() {
				if r.err == nil && !(test.ok && bytes.Equal(r.body, data)) {
					t.Errorf("a node got %d bytes, %v", len(r.body), r.err)
				}
			}
		})
	}
}

func TestBadUploads(t *testing.T) {
	f := newFleet(t, 1, Options{}, accept)
	for name, change := range map[string]func(*Upload){
		"no name":  func(up *Upload) { up.Name = "" },
		"dots":     func(up *Upload) { up.Name = "a/../b" },
		"no user":  func(up *Upload) { up.User = "" },
		"two part": func(up *Upload) { up.User = "a/b" },
		"empty":    func(up *Upload) { up.Size = 0 },
		"no body":  func(up *Upload) { up.Body = nil },
	} {
		up := upload(noise(10))
		change(&up)
		res, err := f.Put(t.Context(), up)
		if image.KindOf(err) != image.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
		<-res.Done
	}
	if n := f.conns.Load(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
}

// A node that has closed its kept-alive connections gets the upload on a new one.
func TestDeadKeptAliveConnection(t *testing.T) {
	f := newFleet(t, 1, Options{}, accept)
	data := noise(1 << 20)
	const uploads = 5
	for range uploads {
		res, err := f.Put(t.Context(), upload(data))
		if err != nil {
			t.Fatal(err)
		}
		<-res.Done
		f.servers[0].CloseClientConnections()
	}
	whole := 0
	for _, r := range f.received() {
		if bytes.Equal(r.body, data) {
			whole++
		}
	}
	if whole != uploads || f.conns.Load() < uploads {
		t.Errorf("%d of %d uploads arrived whole, on %d connections", whole, uploads, f.conns.Load())
	}
}

// A node may answer an upload that it knows already before the body is there.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, Options{},
		func(_ *fleet, _ int, w http.ResponseWriter, r *http.Request) { receipt(w, r.ContentLength) })
	data := make([]byte, 8<<20)
	res, err := f.Put(t.Context(), upload(data))
	if err != nil {
		t.Fatal(err)
	}
	<-res.Done
	clear(data)
}

// BenchmarkPut broadcasts to three nodes that discard; plain is one PUT with net/http as it comes.
func BenchmarkPut(b *testing.B) {
	data := noise(12_600_000)
	var o Options
	for id := 1; id <= 3; id++ {
		o.Nodes = append(o.Nodes, Node{image.NodeID(id), discardServer(b)})
	}
	c, err := New(o)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	b.Run("broadcast", func(b *testing.B) {
		b.SetBytes(3 * int64(len(data)))
		for b.Loop() {
			res, err := c.Put(b.Context(), upload(data))
			if err != nil {
				b.Fatal(err)
			}
			<-res.Done
		}
	})
	b.Run("plain", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			req, err := http.NewRequest(http.MethodPut, "http://"+o.Nodes[0].Addr, bytes.NewReader(data))
			if err != nil {
				b.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				b.Fatal(err)
			}
			drain(resp)
		}
	})
}
