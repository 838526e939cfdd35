package tracing

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"imgcluster/cluster/clustertest/poll"
	"imgcluster/cluster/trace"
)

func options(endpoint string, logger *zap.Logger) Options {
	return Options{Endpoint: endpoint, Sample: 1, Cluster: "test", Node: 2, Version: "v1", Logger: logger}
}

// request is one that is traced from its beginning to its end.
func request(e *Exporter) {
	r := trace.New("a")
	r.Start(e, "GET /", http.Header{})
	r.Add(trace.Log, time.Millisecond)
	r.End()
}

// TestCollectorFails: that a collector takes no traces is logged once, and once that it does again.
func TestCollectorFails(t *testing.T) {
	var status, asked atomic.Int32
	status.Store(http.StatusServiceUnavailable)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.WriteHeader(int(status.Load()))
	}))
	defer server.Close()
	core, logs := observer.New(zap.InfoLevel)
	e := New(options(server.URL+"/", zap.New(core)))
	defer e.Close(t.Context())
	for i := range int32(2) {
		request(e)
		poll.Until(t, time.Minute, "the collector is asked", func() bool { return asked.Load() > i })
	}
	status.Store(http.StatusOK)
	request(e)
	poll.Until(t, time.Minute, "a line", func() bool {
		return logs.FilterMessage("the collector takes traces again").Len() == 1
	})
	failed := logs.FilterMessage("the collector takes no traces, which are dropped").Len()
	if failed != 1 || logs.Len() != 2 {
		t.Errorf("logged %v", logs.All())
	}
}

// TestCollectorHangs: nobody waits for a collector that does not answer, but Close for as long as it may.
func TestCollectorHangs(t *testing.T) {
	hung := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hung }))
	defer server.Close()
	defer close(hung)
	e := New(options(server.URL, zap.NewNop()))
	for range 3 * queueMax { // more than can wait
		request(e)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	closed := make(chan struct{})
	go func() {
		e.Close(ctx)
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(time.Minute):
		t.Error("Close does not return")
	}
}
