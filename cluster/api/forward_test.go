package api

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// TestForwardedAnswerDoesNotWaitForTheBody: what another node answers before all of an upload came is sent
// to the client at once, as it may wait for the answer before it sends more.
func TestForwardedAnswerDoesNotWaitForTheBody(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(http.StatusPreconditionFailed)
		http.NewResponseController(w).Flush()
		io.Copy(io.Discard, r.Body)
	}))
	defer other.Close()
	node := &leaving{to: 2, await: errLeft}
	h, srv := serveOn(t, node, node)
	h.Forward = reach{2: other}
	conn := dial(t, srv)
	const size, first = 1_000_000, 1000
	fmt.Fprintf(conn, "PUT /v1/images/alice/a.png HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", size,
		make([]byte, first))
	answers := bufio.NewReader(conn)
	resp, err := http.ReadResponse(answers, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusPreconditionFailed || !resp.Close {
		t.Errorf("status %d, closed after it %v", resp.StatusCode, resp.Close)
	}
	if _, err := conn.Write(make([]byte, size-first)); err != nil {
		t.Errorf("the rest of the body: %v", err)
	}
	if _, err := io.Copy(io.Discard, answers); err != nil {
		t.Errorf("after the answer: %v", err)
	}
}

// deadlines are those set for reading.
type deadlines struct {
	http.ResponseWriter
	last time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.last = t
	return nil
}

// TestNoDeadlineAfterTheBody: net/http reads a body that it passes on once more after its end, maybe only
// when the connection has its next request, to which no deadline of this one may be left.
func TestNoDeadlineAfterTheBody(t *testing.T) {
	h, _ := serve(t, &shelf{})
	w := &deadlines{ResponseWriter: httptest.NewRecorder()}
	r := httptest.NewRequest(http.MethodPut, "/", strings.NewReader("x"))
	r.Body = io.NopCloser(iotest.ErrReader(http.ErrBodyReadAfterClose))
	b := h.body(w, r)
	b.ended.Store(true) // it was the last byte
	if n, err := b.Read(make([]byte, 8)); n != 0 || err != io.EOF {
		t.Errorf("read %d bytes after the end: %v", n, err)
	}
	if !w.last.IsZero() {
		t.Error("a deadline for reading is left")
	}
}
