package trace

import (
	"context"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Tracer makes spans; see package tracing.
type Tracer = trace.Tracer

// w3c is how a span names its parent in a request's header: traceparent, of the W3C's Trace Context.
var w3c propagation.TraceContext

// span is what a Request shows a collector of traces.
type span struct {
	tracer Tracer
	ctx    context.Context
	trace.Span
}

// Start begins the request's span, a child of the one that the header names. From then on the header, and
// those that get Inject, name this one. A nil tracer makes none. It is called before the request is used by
// others. End it.
func (r *Request) Start(t Tracer, name string, h http.Header) {
	if t == nil {
		return
	}
	carrier := propagation.HeaderCarrier(h)
	ctx, s := t.Start(w3c.Extract(context.Background(), carrier), name, trace.WithTimestamp(r.Began),
		trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attribute.String("request", r.ID)))
	r.span = &span{t, ctx, s}
	w3c.Inject(ctx, carrier)
}

// Inject has a request to another node name this one's span as its parent.
func (r *Request) Inject(h http.Header) {
	if r != nil && r.span != nil {
		w3c.Inject(r.span.ctx, propagation.HeaderCarrier(h))
	}
}

// Fail has the span say why the request failed: by the kind of the error, for its text may name images.
func (r *Request) Fail(kind string) {
	if r != nil && r.span != nil {
		r.span.SetStatus(codes.Error, kind)
	}
}

// End ends the request's span, and shows its steps: each from its beginning to its end, with the seconds in
// between that it was at work.
func (r *Request) End() {
	if r.span == nil {
		return
	}
	defer r.span.End()
	if !r.span.IsRecording() {
		return
	}
	for s, name := range names {
		took := r.Took(Step(s))
		if took == 0 {
			continue
		}
		_, child := r.span.tracer.Start(r.span.ctx, name,
			trace.WithTimestamp(r.Began.Add(time.Duration(r.steps[s].first.Load()))),
			trace.WithAttributes(attribute.Float64("busy_s", took.Seconds())))
		child.End(trace.WithTimestamp(r.Began.Add(time.Duration(r.steps[s].last.Load()))))
	}
}
