package cluster_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"go.opentelemetry.io/collector/pdata/ptrace"

	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/config"
)

// collected are the spans that a collector was sent.
type collected struct {
	mu     sync.Mutex
	traces []ptrace.Traces
	texts  [][]byte
}

// ServeHTTP implements http.Handler. It reads what it is sent as a collector does.
func (c *collected) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(r.Body)
	traces := ptrace.NewTraces()
	if err == nil {
		traces, err = (&ptrace.JSONUnmarshaler{}).UnmarshalTraces(text)
	}
	if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/json" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.traces = append(c.traces, traces)
	c.texts = append(c.texts, text)
}

// of returns the spans of a trace that have this name.
func (c *collected) of(trace, name string) (list []ptrace.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, traces := range c.traces {
		for _, of := range traces.ResourceSpans().All() {
			for _, scope := range of.ScopeSpans().All() {
				for _, s := range scope.Spans().All() {
					if s.TraceID().String() == trace && s.Name() == name {
						list = append(list, s)
					}
				}
			}
		}
	}
	return list
}

// nodes returns the service.instance.id of all who sent spans.
func (c *collected) nodes() map[int64]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := map[int64]bool{}
	for _, traces := range c.traces {
		for _, of := range traces.ResourceSpans().All() {
			if id, ok := of.Resource().Attributes().Get("service.instance.id"); ok {
				ids[id.Int()] = true
			}
		}
	}
	return ids
}

// TestTracing: an upload and a read are spans of the trace that the client names, on each node that takes
// part, with their steps in them, and without the names of users and images.
func TestTracing(t *testing.T) {
	t.Parallel()
	spans := &collected{}
	server := httptest.NewServer(spans)
	t.Cleanup(server.Close)
	c := clustertest.Start(t, clustertest.Options{Change: func(c *config.Config) {
		c.Tracing.Endpoint = server.URL
	}})
	const trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	from := http.Header{"Traceparent": {"00-" + trace + "-" + parent + "-00"}}
	c.Put(t, 1, "alice", "secret.png", clustertest.Image(1, 1_000_000), from)
	got := c.Do(http.MethodGet, 1, clustertest.Path("alice", "secret.png"), nil, from)
	if got.Status != http.StatusOK {
		t.Fatal(got.Status)
	}
	missing := c.Do(http.MethodGet, 1, clustertest.Path("alice", "nothing.png"), nil, from)
	if missing.Problem.Code != image.KindNotFound {
		t.Fatalf("%d %s", missing.Status, missing.Body)
	}
	put, get := "PUT "+wire.ImagePattern, "GET "+wire.ImagePattern
	clustertest.Poll(t, "spans of the upload and the reads", func() bool {
		return len(spans.of(trace, put)) >= 2 && len(spans.of(trace, get)) >= 2 &&
			len(spans.of(trace, "fsync")) >= 2
	})
	if nodes := spans.nodes(); len(nodes) < 2 || nodes[0] {
		t.Errorf("spans of nodes %v", nodes)
	}
	var first ptrace.Span
	for _, s := range spans.of(trace, put) {
		if s.ParentSpanID().String() == parent {
			first = s
		}
	}
	if first == (ptrace.Span{}) || first.Kind() != ptrace.SpanKindServer {
		t.Fatal("no upload is the child of the client's span")
	}
	for _, s := range spans.of(trace, put) {
		if s != first && s.ParentSpanID() != first.SpanID() {
			t.Errorf("another node's span is a child of %s, want %s", s.ParentSpanID(), first.SpanID())
		}
	}
	began := first.StartTimestamp()
	for _, step := range []string{"receive", "seal", "write", "fsync", "log"} {
		steps := spans.of(trace, step)
		if len(steps) == 0 {
			t.Errorf("no step %s", step)
		}
		for _, s := range steps {
			busy, ok := s.Attributes().Get("busy_s")
			took := s.EndTimestamp().AsTime().Sub(s.StartTimestamp().AsTime())
			if s.StartTimestamp() < began || !ok || busy.Double() <= 0 || busy.Double() > took.Seconds()+0.001 {
				t.Errorf("step %s from %s, of an upload from %s, took %v and was busy for %v s", step,
					s.StartTimestamp(), began, took, busy.Double())
			}
		}
	}
	failed := 0
	for _, s := range spans.of(trace, get) {
		if s.Status().Code() == ptrace.StatusCodeError && s.Status().Message() == string(image.KindNotFound) {
			failed++
		}
	}
	if failed == 0 {
		t.Error("no read failed")
	}
	spans.mu.Lock()
	defer spans.mu.Unlock()
	for _, text := range spans.texts {
		if bytes.Contains(text, []byte("alice")) || bytes.Contains(text, []byte("secret")) {
			t.Errorf("a span names who or what: %s", text)
		}
	}
}
