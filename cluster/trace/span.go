package trace

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// Span is a request, or a step of one, as a collector of traces is told it. Its IDs are random.
type Span struct {
	Trace      [16]byte
	ID, Parent [8]byte // no parent: 0
	Name       string
	Began      time.Time
	Ended      time.Time
	Request    string        // the request's ID; empty: this is a step
	Busy       time.Duration // of a step: how long it was at work in between
	Failed     string        // why the request failed; empty: it did not
}

// Tracer takes spans; see package tracing.
type Tracer interface {
	// Samples reports whether the spans of a trace are wanted.
	Samples(trace [16]byte) bool
	// Take takes the spans of a request that has ended. It does not block.
	Take([]Span)
}

// parentField names the span that a request is a part of (W3C Trace Context, section 3.2).
const parentField = "Traceparent"

// traced is the span of a Request.
type traced struct {
	Span
	tracer  Tracer
	sampled bool
	failed  atomic.Pointer[string]
}

// Start begins the request's span, a child of the one that the header names. From then on the header, and
// those that get Inject, name this one. A nil tracer makes none. It is called before the request is used by
// others. End it.
func (r *Request) Start(t Tracer, name string, h http.Header) {
	if t == nil {
		return
	}
	s := &traced{tracer: t}
	s.Span = Span{Name: name, Began: r.Began, Request: r.ID}
	var ok bool
	if s.Trace, s.Parent, ok = parseParent(h.Get(parentField)); !ok {
		rand.Read(s.Trace[:])
	}
	rand.Read(s.ID[:])
	s.sampled = t.Samples(s.Trace)
	r.span = s
	r.Inject(h)
}

// parseParent reads a traceparent: version, trace, span and flags, in hexadecimal. A later version may have
// more after these.
func parseParent(text string) (trace [16]byte, span [8]byte, ok bool) {
	parts := strings.SplitN(text, "-", 5)
	if len(parts) < 4 || len(parts[0]) != 2 || parts[0] == "ff" || len(parts[3]) != 2 ||
		len(parts) == 5 && parts[0] == "00" || text != strings.ToLower(text) {
		return trace, span, false
	}
	ok = fill(trace[:], parts[1]) && fill(span[:], parts[2]) && fill(make([]byte, 1), parts[0]) &&
		fill(make([]byte, 1), parts[3]) && trace != [16]byte{} && span != [8]byte{}
	if !ok {
		return [16]byte{}, [8]byte{}, false
	}
	return trace, span, true
}

// fill reads as many bytes as there is room for, and not one more.
func fill(b []byte, text string) bool {
	if len(text) != hex.EncodedLen(len(b)) {
		return false
	}
	_, err := hex.Decode(b, []byte(text))
	return err == nil
}

// Inject has a request to another node name this one's span as its parent.
func (r *Request) Inject(h http.Header) {
	if r == nil || r.span == nil {
		return
	}
	flags := "00"
	if r.span.sampled {
		flags = "01"
	}
	h.Set(parentField, "00-"+hex.EncodeToString(r.span.Trace[:])+"-"+hex.EncodeToString(r.span.ID[:])+"-"+flags)
}

// Fail has the span say why the request failed: by the kind of the error, for its text may name images.
func (r *Request) Fail(kind string) {
	if r != nil && r.span != nil {
		r.span.failed.Store(&kind)
	}
}

// End ends the request's span, and gives it to the tracer with its steps: each from its beginning to its end,
// with how long in between it was at work.
func (r *Request) End() {
	if r.span == nil || !r.span.sampled {
		return
	}
	whole := r.span.Span
	whole.Ended = time.Now()
	if kind := r.span.failed.Load(); kind != nil {
		whole.Failed = *kind
	}
	spans := []Span{whole}
	for s, name := range names {
		if took := r.Took(Step(s)); took > 0 {
			step := Span{
				Trace: whole.Trace, Parent: whole.ID, Name: name, Busy: took,
				Began: r.Began.Add(time.Duration(r.steps[s].first.Load())),
				Ended: r.Began.Add(time.Duration(r.steps[s].last.Load())),
			}
			rand.Read(step.ID[:])
			spans = append(spans, step)
		}
	}
	r.span.tracer.Take(spans)
}
