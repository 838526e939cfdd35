// Package tracing sends the spans of what a node does for images to a collector, by OTLP over HTTP
// (opentelemetry.io). Nothing waits for the collector: what it does not take in time is dropped.
package tracing

import (
	"context"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
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

// Exporter sends spans. Close it.
type Exporter struct{ provider *sdk.TracerProvider }

// New returns an Exporter. It does not connect yet.
func New(o Options) *Exporter {
	to := &logged{SpanExporter: newExporter(o.Endpoint), logger: o.Logger}
	return &Exporter{sdk.NewTracerProvider(
		sdk.WithBatcher(to, sdk.WithMaxQueueSize(queueMax), sdk.WithMaxExportBatchSize(batchMax),
			sdk.WithBatchTimeout(batchEvery), sdk.WithExportTimeout(sendTimeout)),
		// By the trace's ID, so that all nodes send the same ones, whatever a client wants.
		sdk.WithSampler(sdk.TraceIDRatioBased(o.Sample)),
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "imgcluster"),
			attribute.String("service.namespace", o.Cluster),
			attribute.Int64("service.instance.id", int64(o.Node)),
			attribute.String("service.version", o.Version),
		)),
	)}
}

// Tracer returns what makes spans. That of a nil Exporter is nil.
func (e *Exporter) Tracer() trace.Tracer {
	if e == nil {
		return nil
	}
	return e.provider.Tracer("imgcluster")
}

// Close sends what is left, until ctx is done. A nil Exporter has nothing left.
func (e *Exporter) Close(ctx context.Context) {
	if e != nil {
		_ = e.provider.Shutdown(ctx) // logged has logged it
	}
}

// logged logs when the collector begins to take spans, and when it ends.
type logged struct {
	sdk.SpanExporter
	logger *zap.Logger
	failed atomic.Bool
}

// ExportSpans implements sdktrace.SpanExporter.
func (l *logged) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := l.SpanExporter.ExportSpans(ctx, spans)
	if failed := err != nil; failed != l.failed.Swap(failed) {
		if failed {
			l.logger.Warn("the collector takes no traces, which are dropped", zap.Error(err),
				zap.String("hint", "check tracing.endpoint"))
		} else {
			l.logger.Info("the collector takes traces again")
		}
	}
	return nil
}
