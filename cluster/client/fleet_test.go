package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imgcluster/cluster/image"
)

// fleet is three HTTP servers that behave like nodes as far as a test lets them.
type fleet struct {
	*Client
	servers []*httptest.Server
	conns   atomic.Int64           // connections accepted
	before  func(*httptest.Server) // changes each server before it starts; may be nil

	mu   sync.Mutex
	puts []request
}

// request is one upload as a node got it.
type request struct {
	node   int
	header http.Header
	path   string
	body   []byte
	err    error
}

// handler serves a request at the node with the given ID.
type handler func(f *fleet, id int, w http.ResponseWriter, r *http.Request)

func newFleet(t *testing.T, nodes int, o Options, h handler, changes ...func(*fleet)) *fleet {
	t.Helper()
	f := &fleet{}
	for _, change := range changes {
		change(f)
	}
	for id := 1; id <= nodes; id++ {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter,
			r *http.Request,
		) {
			h(f, id, w, r)
		}))
		s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				f.conns.Add(1)
			}
		}
		addr := s.Listener.Addr().String()
		if f.before != nil {
			f.before(s)
		}
		s.Start()
		f.servers = append(f.servers, s)
		o.Nodes = append(o.Nodes, Node{image.NodeID(id), addr})
	}
	o.BackoffMin = time.Millisecond
	o.BackoffMax = 2 * time.Millisecond
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	f.Client = c
	t.Cleanup(func() {
		c.Close()
		for _, s := range f.servers {
			s.Close()
		}
	})
	return f
}

// receive reads an upload and keeps it.
func (f *fleet) receive(id int, r *http.Request) error {
	b := make([]byte, r.ContentLength)
	n, err := io.ReadFull(r.Body, b)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.puts = append(f.puts, request{id, r.Header, r.URL.Path, b[:n], err})
	return err
}

func (f *fleet) received() []request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.puts
}

// accept is a node that takes every upload.
func accept(f *fleet, id int, w http.ResponseWriter, r *http.Request) {
	if f.receive(id, r) == nil {
		receipt(w, r.ContentLength)
	}
}

// barrier returns a function that holds its first n callers until all of them are there.
func barrier(n int64) func() {
	var came atomic.Int64
	all := make(chan struct{})
	return func() {
		if came.Add(1) == n {
			close(all)
		}
		<-all
	}
}

func receipt(w http.ResponseWriter, size int64) {
	w.WriteHeader(http.StatusCreated)
	json.NewEncoder(w).Encode(image.Receipt{
		User: "alice", Name: "a.png", Version: 7, Bytes: size, Owner: 2, Replicas: []image.NodeID{2, 3},
		Committed: true,
	})
}

func refuse(w http.ResponseWriter, err error) {
	p := image.AsProblem(err)
	w.Header().Set("Content-Type", "application/problem+json")
	if p.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

func noise(size int) []byte {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func upload(data []byte) Upload {
	return Upload{
		User: "alice", Name: "a.png", Size: int64(len(data)),
		Body: func() io.Reader { return bytes.NewReader(data) },
	}
}

// expectKind checks that err has the kind and a hint.
func expectKind(t *testing.T, err error, kind image.Kind) {
	t.Helper()
	var e *image.Error
	if !errors.As(err, &e) || e.Kind != kind {
		t.Fatalf("got error %v (%q), want the kind %q", err, image.KindOf(err), kind)
	}
	if e.Hint() == "" || strings.Contains(e.Detail, "%!") {
		t.Errorf("error %q has the hint %q", e.Detail, e.Hint())
	}
}
