// Package trace follows one request through a node: its ID, for every log line about it, and where its time
// goes.
package trace

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Op is what a request wants.
type Op string

// The requests that are measured.
const (
	Upload Op = "upload"
	Read   Op = "read"
)

// Ops are all of them.
var Ops = []Op{Upload, Read}

// Step is a part of what a node does for a request. Some go on at the same time: an image is encrypted and
// written while it comes in.
type Step int

// The steps.
const (
	Wait    Step = iota // for a place among the requests that run at once
	Receive             // the body, from its first byte to its last
	Seal                // to encrypt it and compute its digests
	Write               // to write the ciphertext
	Fsync               // to make it durable: fsync, rename, fsync of the folder
	Log                 // from then, or the last byte, until the record is committed; of a read: to look it up
	Open                // to read a copy, here or on another node, and decrypt it
	Answer              // to send the answer

	steps = iota
)

var names = [steps]string{"wait", "receive", "seal", "write", "fsync", "log", "open", "answer"}

// Steps returns what a request may consist of.
func (o Op) Steps() []Step {
	if o == Read {
		return []Step{Wait, Log, Open, Answer}
	}
	return []Step{Wait, Receive, Seal, Write, Fsync, Log, Answer}
}

// String returns the step's name in metrics and in logs.
func (s Step) String() string { return names[s] }

// Request is a request that a node has got. It is safe for concurrent use, and a nil one takes no notes.
type Request struct {
	ID    string
	Began time.Time
	steps [steps]step
	span  *traced // nil: nobody is shown it
}

// step is how long a step took, and its beginning and end, counted from that of the request.
type step struct{ took, first, last atomic.Int64 } // ns

// notBegun is the beginning of a step before it.
const notBegun = math.MaxInt64

// New returns the Request that begins now.
func New(id string) *Request {
	r := &Request{ID: id, Began: time.Now()}
	for s := range r.steps {
		r.steps[s].first.Store(notBegun)
	}
	return r
}

type key struct{}

// With returns a context of work for a request.
func With(ctx context.Context, r *Request) context.Context { return context.WithValue(ctx, key{}, r) }

// From returns the request that work is for, nil when it is for none.
func From(ctx context.Context) *Request {
	r, _ := ctx.Value(key{}).(*Request)
	return r
}

// Add takes note of a step, or of a part of it, that has just ended.
func (r *Request) Add(s Step, took time.Duration) {
	if r == nil {
		return
	}
	x, now := &r.steps[s], time.Since(r.Began)
	x.took.Add(int64(took))
	for first := int64(now - took); ; {
		known := x.first.Load()
		if first >= known || x.first.CompareAndSwap(known, first) {
			break
		}
	}
	x.last.Store(int64(now)) // the latest
}

// Since is Add of the time since then.
func (r *Request) Since(s Step, then time.Time) { r.Add(s, time.Since(then)) }

// Took returns how long a step has taken until now.
func (r *Request) Took(s Step) time.Duration {
	if r == nil {
		return 0
	}
	return time.Duration(r.steps[s].took.Load())
}

// Field returns the request's ID for a log line; nothing when there is no request.
func (r *Request) Field() zap.Field {
	if r == nil {
		return zap.Skip()
	}
	return zap.String("request", r.ID)
}

// Times returns the steps for a log line, in seconds: those that took a millisecond or more.
func (r *Request) Times() zap.Field {
	return zap.Inline(zapcore.ObjectMarshalerFunc(func(e zapcore.ObjectEncoder) error {
		for s, name := range names {
			if took := r.Took(Step(s)).Round(time.Millisecond); took > 0 {
				e.AddFloat64(name+"_s", took.Seconds())
			}
		}
		return nil
	}))
}
