package modes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"imgcluster/cluster/oserr"
	"imgcluster/cluster/printable"
)

// output is standard output. After the first failure it writes nothing more, and returns that failure: no
// command whose output could not be written ends as a success.
type output struct {
	w   io.Writer
	mu  sync.Mutex
	err error // the first failure
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		n, o.err = o.w.Write(p)
	}
	return n, o.err
}

func (o *output) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// outputError is the error of a command whose output could not be written.
type outputError struct {
	write error
	also  error // of the command itself; may be nil
}

func (o *outputError) Error() string {
	text := fmt.Sprintf("standard output cannot be written: %v", oserr.NoPath(o.write))
	if o.also != nil {
		text = o.also.Error() + "\n" + text
	}
	return text
}

func (o *outputError) Unwrap() []error {
	if o.also == nil {
		return []error{o.write}
	}
	return []error{o.also, o.write}
}

// Hint returns the next step.
func (o *outputError) Hint() string {
	return "a part of the output is missing, whatever else the command did is done: send its output elsewhere"
}

// join adds the failure of the output to the error of the command.
func (o *output) join(err error) error {
	switch failure := o.failure(); {
	case failure == nil:
		return err
	case err == nil, errors.Is(err, failure), errors.Is(err, errVerdict):
		return &outputError{write: failure}
	default:
		return &outputError{write: failure, also: err}
	}
}

// unread reports whether nothing failed but that the reader of the output was closed.
func (o *outputError) unread() bool { return o.also == nil && isClosedPipe(o.write) }

// printJSON prints a value in one line, in which characters that are not printable are escaped.
func (e *env) printJSON(v any) error { return json.NewEncoder(printable.Writer(e.out)).Encode(v) }

// input is standard input, or a pipe, whose reads end when the command is stopped.
type input struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader. When the command is stopped, the read is abandoned and its data is lost.
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

// await returns what do returns, or the cause of the end of ctx if that comes first. Then do is abandoned.
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

// fileOf returns the file behind a stream; nil when there is none.
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
