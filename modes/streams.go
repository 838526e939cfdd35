package modes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"imgcluster/cluster/oserr"
	"imgcluster/cluster/printable"
)

// output is standard output. It keeps its first failure, after which it writes nothing more, so that no
// command that prints ends as if all of it could be read.
type output struct {
	w   io.Writer
	mu  sync.Mutex
	bad error // the failure
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.bad == nil {
		n, o.bad = o.w.Write(p)
	}
	return n, o.bad
}

func (o *output) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bad
}

// outputError says that not all could be printed. The causes of a command that failed besides are kept.
type outputError struct {
	bad  error // of the write
	also error // nil: nothing else failed
}

func (o *outputError) Error() string {
	text := fmt.Sprintf("standard output cannot be written: %v", oserr.NoPath(o.bad))
	if o.also != nil {
		text = o.also.Error() + "\n" + text
	}
	return text
}

func (o *outputError) Unwrap() []error {
	if o.also == nil {
		return []error{o.bad}
	}
	return []error{o.also, o.bad}
}

// Hint returns the next step.
func (o *outputError) Hint() string {
	return "a part of what was to be printed is missing, whatever else the command did is done: send its output elsewhere"
}

// verdict is err, how the command ended, with the failure of the output.
func (o *output) verdict(err error) error {
	switch bad := o.failure(); {
	case bad == nil:
		return err
	case err == nil, errors.Is(err, bad), errors.Is(err, errVerdict):
		return &outputError{bad: bad}
	default:
		return &outputError{bad: bad, also: err}
	}
}

// unread reports whether all that failed is that whoever read the output has gone.
func (o *outputError) unread() bool { return o.also == nil && errors.Is(o.bad, syscall.EPIPE) }

// printJSON prints a value in one line, as exact as JSON is and safe to look at.
func (e *env) printJSON(v any) error { return json.NewEncoder(printable.Writer(e.out)).Encode(v) }

// input is standard input, or a pipe, on which nobody waits once the command is stopped.
type input struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader. A read that is given up goes on alone, and what it gets is lost.
func (i *input) Read(p []byte) (int, error) {
	if i.ctx.Done() == nil {
		return i.r.Read(p)
	}
	b, err := await(i.ctx, func() ([]byte, error) {
		b := make([]byte, len(p))
		n, err := i.r.Read(b)
		return b[:n], err
	})
	return copy(p, b), err
}

// await returns what do returns, or why ctx ended before that. Then do goes on alone.
func await[T any](ctx context.Context, do func() (T, error)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		v, err := do()
		answers <- answer{v, err}
	}()
	select {
	case a := <-answers:
		return a.v, a.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// fileOf is the file behind a stream; nil when there is none.
func fileOf(v any) *os.File {
	switch v := v.(type) {
	case *os.File:
		return v
	case *input:
		return fileOf(v.r)
	case *output:
		return fileOf(v.w)
	}
	return nil
}
