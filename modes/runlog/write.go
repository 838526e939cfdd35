package runlog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// writerBytes is the size of a Writer's buffer, and so the most of a log that a kill -9 loses.
const writerBytes = 64 << 10

// Writer writes records as lines. It is safe for concurrent use: lines are never mixed. After a failed write
// nothing more is written and every call returns that error. A record that Read would refuse (see the bounds)
// is refused alone; the next one is written.
type Writer struct {
	mu     sync.Mutex
	buf    *bufio.Writer
	line   bytes.Buffer
	enc    *json.Encoder
	bad    error // the first refused record
	closed bool
}

// NewWriter returns a Writer on w. The caller closes w, after Close.
func NewWriter(w io.Writer) *Writer {
	lw := &Writer{buf: bufio.NewWriterSize(w, writerBytes)}
	lw.enc = json.NewEncoder(&lw.line)
	lw.enc.SetEscapeHTML(false)
	return lw
}

// Write appends a record as a line. It rounds times to microseconds and cuts long error texts.
func (w *Writer) Write(rec Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return fmt.Errorf("writing the log: %w", os.ErrClosed)
	}
	if err := w.encode(rec); err != nil {
		w.bad = first(w.bad, err)
		return err
	}
	_, err := w.buf.Write(w.line.Bytes())
	return wrapWrite(err)
}

// encode puts the line of a record into w.line, the type first.
func (w *Writer) encode(rec Record) error {
	typ, value, err := rec.typed()
	if err != nil {
		return fmt.Errorf("record of type %s: %w", typ, err)
	}
	w.line.Reset()
	if err := w.enc.Encode(value); err != nil {
		return fmt.Errorf("record of type %s: %w", typ, err)
	}
	body := bytes.Clone(w.line.Bytes()[1:]) // without the opening brace
	w.line.Reset()
	w.line.WriteString(`{"type":"` + typ + `",`)
	w.line.Write(body)
	if w.line.Len() > lineBytesMax {
		return fmt.Errorf("record of type %s: %d bytes, more than %d", typ, w.line.Len(), lineBytesMax)
	}
	return nil
}

// Flush writes all lines to the underlying writer.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return wrapWrite(w.buf.Flush())
}

// Close flushes, and returns the Writer's first error, that of a refused record included. Later records are
// refused with os.ErrClosed.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	return errors.Join(wrapWrite(w.buf.Flush()), w.bad)
}

func wrapWrite(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("writing the log: %w", err)
}
