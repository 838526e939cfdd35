// Package tracing sends the spans of what a node does for images to a collector, by OTLP over HTTP
// (opentelemetry.io). Nothing waits for the collector: what it does not take in time is dropped.
package tracing

import (
	"context"
	"encoding/binary"
	"math"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/trace"
)

// Bounds of what waits for the collector.
const (
	queueMax    = 4096 // spans; more are dropped
	batchMax    = 512  // spans of one request to the collector
	batchEvery  = 2 * time.Second
	sendTimeout = 5 * time.Second
)

// Options say where spans go and whose they are. All fields are needed.
type Options struct {
	Endpoint string  // the collector's URL
	Sample   float64 // share of the traces that is sent, 0 to 1
	Cluster  string
	Node     uint32
	Version  string
	Logger   *zap.Logger
}

// Exporter sends spans: it implements trace.Tracer. Close it.
type Exporter struct {
	o      Options
	to     *collector
	queue  chan trace.Span
	stop   chan struct{}
	ended  chan struct{}
	cancel context.CancelFunc // ends what is being sent
	failed bool               // the collector took nothing last time
}

// New returns an Exporter. It does not connect yet.
func New(o Options) *Exporter {
	ctx, cancel := context.WithCancel(context.Background())
	e := &Exporter{
		o: o, to: newCollector(o), queue: make(chan trace.Span, queueMax),
		stop: make(chan struct{}), ended: make(chan struct{}), cancel: cancel,
	}
	go e.run(ctx)
	return e
}

// Samples implements trace.Tracer: by the trace's ID, so that all nodes want the same ones, whatever a client
// says.
func (e *Exporter) Samples(id [16]byte) bool {
	return float64(binary.BigEndian.Uint64(id[8:])>>1) < e.o.Sample*math.MaxInt64
}

// Take implements trace.Tracer.
func (e *Exporter) Take(spans []trace.Span) {
	for _, s := range spans {
		select {
		case e.queue <- s:
		default:
		}
	}
}

// run sends what has come, every batchEvery or when there is enough for a batch.
func (e *Exporter) run(ctx context.Context) {
	defer close(e.ended)
	ticker := time.NewTicker(batchEvery)
	defer ticker.Stop()
	var batch []trace.Span
	for {
		stopped := false
		select {
		case s := <-e.queue:
			if batch = append(batch, s); len(batch) < batchMax {
				continue
			}
		case <-ticker.C:
		case <-e.stop:
			stopped = true
		}
		for stopped && len(e.queue) > 0 && len(batch) < batchMax {
			batch = append(batch, <-e.queue)
		}
		if len(batch) > 0 && ctx.Err() == nil {
			e.send(ctx, batch)
			batch = batch[:0]
		}
		if stopped && (len(e.queue) == 0 || ctx.Err() != nil) {
			return
		}
	}
}

// send sends a batch, and logs when the collector begins to take spans, and when it ends.
func (e *Exporter) send(ctx context.Context, batch []trace.Span) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	err := e.to.send(ctx, batch)
	switch {
	case err != nil && !e.failed:
		e.o.Logger.Warn("the collector takes no traces, which are dropped", zap.Error(err),
			zap.String("hint", "check tracing.endpoint"))
	case err == nil && e.failed:
		e.o.Logger.Info("the collector takes traces again")
	}
	e.failed = err != nil
}

// Close sends what is left, until ctx is done. A nil Exporter has nothing left.
func (e *Exporter) Close(ctx context.Context) {
	if e == nil {
		return
	}
	close(e.stop)
	defer context.AfterFunc(ctx, e.cancel)()
	<-e.ended
	e.cancel()
	e.to.client.CloseIdleConnections()
}
