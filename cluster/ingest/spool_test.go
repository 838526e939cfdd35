package ingest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"imgcluster/cluster/image"
)

// smallSpool returns a spool that cannot hold all of size, and two cursors of it.
func smallSpool(t *testing.T, size int) (s *spool, own, peer *cursor) {
	a, err := newArena(windowChunks*ChunkBytes, 1)
	if err != nil {
		t.Fatal(err)
	}
	s = newSpool(a, pieces{ChunkBytes, ChunkBytes}, int64(size))
	own, err = s.cursor(t.Context())
	if err == nil {
		peer, err = s.cursor(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	s.retain(true)
	t.Cleanup(func() {
		s.close()
		s.free()
		if a.used != 0 {
			t.Errorf("%d chunks leaked", a.used)
		}
		if err := a.close(); err != nil {
			t.Error(err)
		}
	})
	return s, own, peer
}

// TestCursorOfCutBody: whoever begins to read when the body has ended early hears why, as those hear who
// had begun before. A body that ends between nodes is not the client's mistake.
func TestCursorOfCutBody(t *testing.T) {
	body := randomBytes(3 * ChunkBytes)
	for relayed, want := range map[bool]image.Kind{false: image.KindIncomplete, true: image.KindAborted} {
		s, _, _ := smallSpool(t, len(body))
		s.relayed = relayed
		filled := s.fill(cutAfter(body, ChunkBytes))
		_, err := s.cursor(t.Context())
		if image.KindOf(filled) != want || !errors.Is(err, filled) {
			t.Errorf("relayed %v, filled: %v, a late reader: %v", relayed, filled, err)
		}
	}
}

// TestClosedCursor: what a closed cursor had not read is freed, and reading it fails.
func TestClosedCursor(t *testing.T) {
	body := randomBytes(6 * ChunkBytes)
	s, own, peer := smallSpool(t, len(body))
	filled := make(chan error)
	go func() { filled <- s.fill(bytes.NewReader(body)) }()
	if _, err := peer.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	peer.Close()
	if _, err := own.WriteTo(io.Discard); err != nil {
		t.Fatal(err)
	}
	own.Close()
	if err := <-filled; err != nil {
		t.Fatal(err)
	}
	if n, err := peer.Read(make([]byte, 100)); n > 0 || !errors.Is(err, errSpoolClosed) {
		t.Errorf("a closed cursor reads %d bytes, %v", n, err)
	}
}

// TestCloseEndsAWaitingRead: whoever waits for the client's next bytes does so no longer.
func TestCloseEndsAWaitingRead(t *testing.T) { synctest.Test(t, closeEndsAWaitingRead) }

func closeEndsAWaitingRead(t *testing.T) {
	_, own, peer := smallSpool(t, ChunkBytes)
	defer own.Close()
	read := make(chan error)
	go func() {
		_, err := peer.Read(make([]byte, 1))
		read <- err
	}()
	synctest.Wait()
	peer.Close()
	if err := <-read; !errors.Is(err, errSpoolClosed) {
		t.Errorf("read: %v", err)
	}
}

// TestPeerAnswersEarly: a node answers when the sender still waits for the client's next bytes. net/http
// reads the body on after that.
func TestPeerAnswersEarly(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.ReadFull(r.Body, make([]byte, ChunkBytes/2))
		w.WriteHeader(http.StatusBadRequest)
	}))
	defer server.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	body := randomBytes(6 * ChunkBytes)
	for range 20 {
		s, own, peer := smallSpool(t, len(body))
		in, out := io.Pipe()
		filled := make(chan error)
		stored := make(chan error)
		sent := make(chan error)
		go func() { filled <- s.fill(in) }()
		go func() {
			_, err := own.WriteTo(io.Discard)
			own.Close()
			stored <- err
		}()
		go func() {
			req, err := http.NewRequestWithContext(context.Background(), http.MethodPut, server.URL,
				io.NopCloser(peer))
			if err == nil {
				var resp *http.Response
				req.ContentLength = int64(len(body))
				if resp, err = transport.RoundTrip(req); err == nil {
					err = resp.Body.Close()
				}
			}
			peer.Close()
			sent <- err
		}()
		out.Write(body[:ChunkBytes])
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		out.Write(body[ChunkBytes:])
		if err := errors.Join(<-filled, <-stored); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSlowBytesGoOn: what comes slowly is passed on before a chunk is full.
func TestSlowBytesGoOn(t *testing.T) { synctest.Test(t, slowBytesGoOn) }

func slowBytesGoOn(t *testing.T) {
	s, own, peer := smallSpool(t, ChunkBytes)
	defer own.Close()
	defer peer.Close()
	in, out := io.Pipe()
	filled := make(chan error)
	go func() { filled <- s.fill(in) }()
	defer func() { out.Close(); <-filled }()
	read := make(chan int)
	go func() {
		n, _ := peer.Read(make([]byte, ChunkBytes))
		read <- n
	}()
	for sent := 0; ; sent++ {
		select {
		case n := <-read:
			if n == 0 || sent < 2 {
				t.Errorf("%d bytes passed on of %d", n, sent)
			}
			return
		case <-time.After(100 * time.Millisecond):
			if sent > 100 {
				t.Fatal("nothing was passed on")
			}
			out.Write([]byte{1})
		}
	}
}
