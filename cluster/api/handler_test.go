package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/access"
	"imgcluster/cluster/clustertest/poll"
	"imgcluster/cluster/image"
	"imgcluster/cluster/trace"
	"imgcluster/cluster/wire"
	"imgcluster/crypto"
)

// shelf has one image, whose content fails on demand.
type shelf struct {
	Images
	mu       sync.Mutex
	rec      image.Record
	contents []wire.Content // of the next reads
}

func (s *shelf) Record(ctx context.Context, _, _ string) (*image.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := s.rec
	return &rec, ctx.Err()
}

func (s *shelf) Open(context.Context, *image.Record) wire.Content {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.contents[0]
	if len(s.contents) > 1 {
		s.contents = s.contents[1:]
	}
	return c
}

// flaky is size bytes of which only the first `good` can be read.
type flaky struct {
	*io.SectionReader
	all    *bytes.Reader
	off    int64       // of the section
	asked  []byteRange // the sections asked for
	good   int64
	read   func() // called before every read; may be nil
	closed atomic.Bool
}

func newFlaky(size, good int64, read func()) *flaky {
	f := &flaky{all: bytes.NewReader(make([]byte, size)), good: good, read: read}
	f.Section(0, size)
	return f
}

func (f *flaky) Size() int64 { return f.all.Size() }

func (f *flaky) Section(off, n int64) {
	f.SectionReader = io.NewSectionReader(f.all, off, n)
	f.off = off
	f.asked = append(f.asked, byteRange{off, n})
}

func (f *flaky) Read(p []byte) (int, error) {
	if f.read != nil {
		f.read()
	}
	at, _ := f.Seek(0, io.SeekCurrent)
	if at += f.off; at >= f.good && at < f.Size() {
		return 0, image.Errorf(image.KindDamaged, "no good copy").WithHint("start the other nodes")
	}
	return f.SectionReader.Read(p[:min(int64(len(p)), max(f.good-at, 0))])
}

func (f *flaky) Close() error { f.closed.Store(true); return nil }

// readyNode is a node that is always ready.
type readyNode struct{ Node }

func (readyNode) Ready() error                                { return nil }
func (readyNode) Route(string, string) (image.NodeID, bool)   { return 0, true }
func (readyNode) Await(context.Context, string, string) error { return nil }

// leaving is a node, with its images, that a shard leaves after it was looked up for the first time.
type leaving struct {
	readyNode
	Images
	to    image.NodeID // the node that has the shard then
	looks atomic.Int64
	await error
}

func (l *leaving) Route(string, string) (image.NodeID, bool) {
	if l.looks.Add(1) == 1 {
		return 0, true
	}
	return l.to, false
}

var errLeft = image.Errorf(image.KindNoQuorum, "shard 3 is not on this node")

func (l *leaving) Await(context.Context, string, string) error { return l.await }

func (l *leaving) Record(context.Context, string, string) (*image.Record, error) { return nil, errLeft }

func (l *leaving) Delete(context.Context, image.ID, string, string, image.Conditions) error {
	return errLeft
}

func (l *leaving) Announce(context.Context, image.Request, []image.NodeID) ([]image.NodeID, error) {
	return nil, errLeft
}

func (l *leaving) Put(_ context.Context, req image.Request, body io.Reader) (*image.Record, error) {
	if req.Name == "read.png" {
		io.ReadAll(body)
	}
	return nil, errLeft
}

// TestShardLeaves has a shard leave a node while a request for one of its images is there: the request is
// forwarded to a node that has the shard, as the same request, unless a part of its body was read or the
// client has to know.
func TestShardLeaves(t *testing.T) {
	var got *http.Request
	var body []byte
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.Header()["X-Content-Type-Options"] = []string{"once"}
		w.WriteHeader(http.StatusTeapot)
	}))
	defer target.Close()
	left := errors.New("left")
	for _, test := range []struct {
		method, name, header string
		await                error
		forwarded            bool // by another node
		want                 int
	}{
		{method: http.MethodGet, name: "a.png", want: http.StatusTeapot},
		{method: http.MethodGet, name: "a.png", await: errLeft, want: http.StatusTeapot},
		{method: http.MethodGet, name: "a.png", await: left, want: http.StatusInternalServerError},
		{method: http.MethodHead, name: "a.png", want: http.StatusTeapot},
		{method: http.MethodDelete, name: "a.png", want: http.StatusTeapot},
		{method: http.MethodPost, name: "a.png?bytes=9", want: http.StatusTeapot},
		{method: http.MethodPut, name: "a.png", want: http.StatusTeapot},
		{method: http.MethodPut, name: "read.png", want: http.StatusServiceUnavailable},
		{
			method: http.MethodPut, name: "a.png", header: "Imgcluster-Broadcast",
			want: http.StatusMisdirectedRequest,
		},
		{
			method: http.MethodGet, name: "a.png", header: wire.ForwardedField, forwarded: true,
			want: http.StatusServiceUnavailable,
		},
		// What a client says of that counts for nothing.
		{method: http.MethodGet, name: "a.png", header: wire.ForwardedField, want: http.StatusTeapot},
		{method: http.MethodPut, name: "a.png", header: "Imgcluster-Relayed", want: http.StatusTeapot},
	} {
		t.Run(strings.Join([]string{test.method, test.name, test.header}, " "), func(t *testing.T) {
			got = nil
			body = nil
			node := &leaving{to: 2, await: test.await}
			h, srv := serveOn(t, node, node)
			h.Forward = reach{2: target}
			if test.forwarded {
				srv = servePeers(t, h)
			}
			const image = "the image"
			var sent io.Reader
			if test.method == http.MethodPut {
				sent = strings.NewReader(image)
			}
			req, err := http.NewRequest(test.method, srv.URL+"/v1/images/alice/"+test.name, sent)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Origin", srv.URL)
			req.Header.Set("Sec-Fetch-Site", "same-origin")
			req.Header.Set("Authorization", "Bearer key")
			req.Header.Set("If-Match", `"a"`)
			if test.header != "" {
				req.Header.Set(test.header, "1")
			}
			resp, err := srv.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != test.want {
				t.Errorf("status %d, want %d", resp.StatusCode, test.want)
			}
			if (got != nil) != (test.want == http.StatusTeapot) {
				t.Errorf("the other node got %v", got)
			}
			if got == nil {
				return
			}
			if got.Header.Get("Origin")+got.Header.Get("Sec-Fetch-Site")+got.Header.Get("Authorization") != "" ||
				got.Header.Get("If-Match") != `"a"` ||
				!slices.Equal(resp.Header["X-Content-Type-Options"], []string{"once"}) {
				t.Errorf("the other node got %q, the client %q", got.Header, resp.Header)
			}
			if got.Header.Get(wire.ForwardedField) != "1" ||
				got.Header.Get("Imgcluster-Relayed") != "" || got.URL.RequestURI() != "/v1/images/alice/"+test.name ||
				sent != nil && string(body) != image {
				t.Errorf("the other node got %s with %q and the body %q", got.URL, got.Header, body)
			}
			changes := test.method == http.MethodPut || test.method == http.MethodDelete
			if changes != (got.Header.Get("Idempotency-Key") != "") {
				t.Errorf("the other node got the Idempotency-Key %q", got.Header.Get("Idempotency-Key"))
			}
		})
	}
}

func serve(t *testing.T, s *shelf) (*Handler, *httptest.Server) {
	t.Helper()
	return serveOn(t, s, readyNode{})
}

func serveOn(t *testing.T, i Images, n Node) (*Handler, *httptest.Server) {
	t.Helper()
	h := New(Options{
		Ended: func(trace.Op, *trace.Request, Outcome) {},
		ID:    1, Images: i, Node: n, Peers: peers{}, Logger: zap.NewNop(),
		Level: zap.NewAtomicLevel(), Forward: http.DefaultTransport,
		ImageBytes: 1 << 20, ListPage: 10, BodyIdle: 10 * time.Second, Reads: 8, KeyReads: 8, Uploads: 8,
		KeyUploads: 8, Streams: 4,
		StatusEvery:  time.Millisecond,
		HostAllowed:  func(host string) bool { return host == "x" },
		Authenticate: func(*http.Request) (access.Principal, error) { return access.Anyone, nil },
	})
	srv := httptest.NewServer(h)
	srv.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	t.Cleanup(srv.Close)
	return h, srv
}

// servePeers has a handler serve other nodes, by plain HTTP: node 2 sends every request.
func servePeers(t *testing.T, h *Handler) *httptest.Server {
	t.Helper()
	state := nodeState(t, 2)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.TLS = state
		h.ForPeers().ServeHTTP(w, r)
	}))
	srv.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	t.Cleanup(srv.Close)
	return srv
}

// nodeState is the state of a connection whose other end is a node; with 0, the administrator.
func nodeState(t *testing.T, id image.NodeID) *tls.ConnectionState {
	t.Helper()
	master, err := crypto.MasterKeyFromEnv(
		"imgcluster-master-key-v1 f5fac8af2578f500 t07xfydFS4K+p5aN+DoOfwMzq1jI34v53IKaZ6+7L+U=")
	if err != nil {
		t.Fatal(err)
	}
	a, err := access.NewAuthority(master, "test")
	if err != nil {
		t.Fatal(err)
	}
	own := a.Admin()
	if id != 0 {
		own = a.Node(id, "127.0.0.1")
	}
	cert, err := own.Get()
	if err != nil {
		t.Fatal(err)
	}
	return &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{cert.Leaf}}
}

// reach sends requests to nodes, which are test servers.
type reach map[image.NodeID]*httptest.Server

// RoundTrip implements http.RoundTripper.
func (r reach) RoundTrip(req *http.Request) (*http.Response, error) {
	id, ok := wire.ParseNodeHost(req.URL.Host)
	if !ok || req.URL.Scheme != "https" {
		return nil, fmt.Errorf("%s is no node", req.URL)
	}
	req.URL.Scheme = "http"
	req.URL.Host = r[id].Listener.Addr().String()
	return http.DefaultTransport.RoundTrip(req)
}

// TestStrangersAreNoPeers: what nodes ask each other is only for them, and only on their port.
func TestStrangersAreNoPeers(t *testing.T) {
	h, _ := serve(t, &shelf{})
	for _, path := range []string{
		"GET /internal/v1/status", "POST /internal/v1/hello", "POST /internal/v1/join",
		"POST /internal/v1/suspect",
		"GET /internal/v1/images?user=alice&shards=2",
		"GET /internal/v1/copies/x/y", "GET /internal/", "GET /internal",
	} {
		method, path, _ := strings.Cut(path, " ")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "http://x"+path, nil))
		if w.Code != http.StatusNotFound {
			t.Errorf("a client's %s %s: %d", method, path, w.Code)
		}
	}
	for what, state := range map[string]*tls.ConnectionState{
		"plain HTTP": nil, "no certificate": {HandshakeComplete: true}, "the administrator": nodeState(t, 0),
	} {
		for _, path := range []string{"/internal/v1/status", "/v1/images/alice/a.png", "/livez", "/nothing"} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.TLS = state
			w := httptest.NewRecorder()
			h.ForPeers().ServeHTTP(w, r)
			if w.Code != http.StatusForbidden {
				t.Errorf("%s, %s: %d", what, path, w.Code)
			}
		}
	}
}

type peers struct {
	Peers
	mail chan []byte // to node 2
}

func (peers) Status() wire.NodeStatus { return wire.NodeStatus{ID: 1} }

func (p peers) Messages(to image.NodeID) (messages <-chan []byte, release func()) {
	if to != 2 {
		return nil, func() {}
	}
	return p.mail, func() {}
}

func get(t *testing.T, srv *httptest.Server, header ...string) (*http.Response, []byte, error) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, srv.URL+"/v1/images/alice/a.png", nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(header) > 0 {
		req.Header.Set(header[0], header[1])
	}
	resp, err := srv.Client().Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, b, err
}

func TestReadThatFailsAtOnceIsAnError(t *testing.T) {
	c := newFlaky(5000, 0, nil)
	_, srv := serve(t, &shelf{contents: []wire.Content{c}})
	for _, header := range [][]string{nil, {"Range", "bytes=10-20"}, {"Range", "bytes=10-20,30-40"}} {
		resp, body, err := get(t, srv, header...)
		if err != nil || resp.StatusCode != 503 ||
			resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Fatalf("%v, %+v", err, resp)
		}
		expectErrorHeaders(t, resp.Header, "Retry-After")
		if !strings.Contains(string(body), `"code":"no-good-copy"`) || !c.closed.Load() {
			t.Errorf("%s, closed %v", body, c.closed.Load())
		}
	}
}

// expectErrorHeaders checks that an error has no header of what it was asked for.
func expectErrorHeaders(t *testing.T, header http.Header, more ...string) {
	t.Helper()
	known := append(more, "Content-Type", "Content-Length", "Date", "Imgcluster-Node", "X-Request-Id",
		"X-Content-Type-Options")
	for k := range header {
		if !slices.Contains(known, k) {
			t.Errorf("the error has the header %s: %q", k, header[k])
		}
	}
	if header.Get("Content-Type") != "application/problem+json" ||
		header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("the error has the headers %q", header)
	}
}

func TestReadThatFailsLaterCutsTheConnection(t *testing.T) {
	const size = 4 << 20
	for _, header := range [][]string{nil, {"Range", fmt.Sprintf("bytes=1-%d,0-0", size-1)}} {
		_, srv := serve(t, &shelf{contents: []wire.Content{newFlaky(size, size/2, nil)}})
		resp, body, err := get(t, srv, header...)
		if resp == nil || resp.StatusCode >= 300 || !errors.Is(err, io.ErrUnexpectedEOF) ||
			len(body) > size/2+1000 {
			t.Errorf("%v: %v, %d bytes, %+v", header, err, len(body), resp)
		}
	}
}

func TestReplacedImageIsReadAgain(t *testing.T) {
	s := &shelf{rec: image.Record{Version: 1}}
	// The first copy fails since the image was replaced meanwhile.
	s.contents = []wire.Content{
		newFlaky(10, 0, func() { s.mu.Lock(); s.rec.Version = 2; s.mu.Unlock() }), newFlaky(20, 20, nil),
	}
	_, srv := serve(t, s)
	resp, body, err := get(t, srv)
	if err != nil || resp.StatusCode != 200 || len(body) != 20 ||
		resp.Header.Get("Imgcluster-Version") != "2" {
		t.Errorf("%v, %d bytes, %+v", err, len(body), resp)
	}
}

func TestCanceledRequestIsNoSuccess(t *testing.T) {
	h, _ := serve(t, &shelf{contents: []wire.Content{newFlaky(1, 1, nil)}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	defer func() {
		if p := recover(); p != http.ErrAbortHandler {
			t.Errorf("status %d with %d bytes, and no abort: %v", w.Code, w.Body.Len(), p)
		}
	}()
	h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "http://x/v1/images/alice/a.png", nil))
}

// TestStatusStreams: an address has as many streams at once as it may; more are told to retry.
func TestStatusStreams(t *testing.T) {
	h, _ := serve(t, &shelf{})
	h.Streams = 2
	srv := servePeers(t, h)
	open := func() *http.Response {
		t.Helper()
		resp, err := srv.Client().Get(srv.URL + wire.StatusPath)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	first := open()
	open()
	resp := open()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // a stream has no end
	if err != nil || resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" ||
		!strings.Contains(string(text), "limits.status_streams") {
		t.Errorf("the third stream: %s, %s, %v", resp.Status, text, err)
	}
	first.Body.Close()
	poll.Until(t, 10*time.Second, "the end of one to make room", func() bool {
		return open().StatusCode == http.StatusOK
	})
}

// TestMessages: what a node has to say to another one comes on that one's stream, in order, without waiting
// for the next figures.
func TestMessages(t *testing.T) {
	const n = 3*messagesAtOnce + 1
	h, _ := serve(t, &shelf{})
	h.StatusEvery = time.Hour
	mail := make(chan []byte, n)
	h.Peers = peers{mail: mail}
	srv := servePeers(t, h)
	resp, err := srv.Client().Get(srv.URL + wire.StatusPath)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	d := json.NewDecoder(resp.Body)
	next := func() (l wire.StatusLine) {
		t.Helper()
		if err := d.Decode(&l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	if l := next(); l.Status == nil || l.Status.ID != 1 || l.Message != nil {
		t.Fatalf("the first line is %+v", l)
	}
	for i := range n {
		mail <- []byte(strconv.Itoa(i))
	}
	for i := range n {
		if l := next(); l.Status != nil || string(l.Message) != strconv.Itoa(i) {
			t.Fatalf("line %d is %+v", i, l)
		}
	}
	h.Notify()
	if l := next(); l.Status == nil {
		t.Errorf("the figures that are asked for are %+v", l)
	}
}

func TestShutdownEndsStatusStreams(t *testing.T) {
	h, _ := serve(t, &shelf{})
	srv := servePeers(t, h)
	resp, err := srv.Client().Get(srv.URL + "/internal/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadFull(resp.Body, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	h.Shutdown()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Error(err)
	}
	again, err := srv.Client().Get(srv.URL + "/internal/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	defer again.Body.Close()
	if b, err := io.ReadAll(again.Body); err != nil || len(b) != 0 {
		t.Errorf("a node that is shutting down sends %q, %v", b, err)
	}
}

// TestStalledClientIsDisconnected asks for more than the connection's buffers hold and takes nothing.
func TestStalledClientIsDisconnected(t *testing.T) {
	const size = 64 << 20
	c := newFlaky(size, size, nil)
	h, srv := serve(t, &shelf{contents: []wire.Content{c}})
	h.BodyIdle = 50 * time.Millisecond
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /v1/images/alice/a.png HTTP/1.1\r\nHost: x\r\n\r\n")
	poll.Until(t, time.Minute, "the node to disconnect a client that takes nothing", c.closed.Load)
}

// TestRequestIDs: an answer and its problem have the request's ID, the client's own where that can be logged.
func TestRequestIDs(t *testing.T) {
	who := access.Principal{}
	h, _ := guarded(&who)
	for _, sent := range []string{"mine-1", "not one", ""} {
		r := httptest.NewRequest(http.MethodGet, "/v1/images/alice/a.png", nil)
		r.Header.Set(wire.RequestField, sent)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		got := w.Header().Get(wire.RequestField)
		var p image.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Instance != "urn:imgcluster:request:"+got {
			t.Errorf("%q: the answer has %q, its problem %q", sent, got, p.Instance)
		}
		if (got == sent) != (sent == "mine-1") || got == "" {
			t.Errorf("%q became %q", sent, got)
		}
	}
}
