package api

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/clustertest/poll"
	"imgcluster/cluster/connlimit"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// TestBodyThatDoesNotCome announces a body and sends nothing: no path waits for it for long, whether it has
// a use for a body or not.
func TestBodyThatDoesNotCome(t *testing.T) {
	h, server := serve(t, &shelf{rec: image.Record{Bytes: 1}, contents: []wire.Content{newFlaky(1, 1, nil)}})
	h.BodyIdle = 100 * time.Millisecond
	nodes := servePeers(t, h)
	for _, request := range []string{
		"GET /livez", "GET /nothing", "POST /internal/v1/hello", "POST /internal/v1/join", "POST /v1/members",
		"POST /livez", "GET /v1/images/a/b",
	} {
		t.Run(request, func(t *testing.T) {
			t.Parallel()
			to := server
			if strings.Contains(request, wire.InternalPath) {
				to = nodes
			}
			conn, err := net.Dial("tcp", to.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", request)
			conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Errorf("no answer, and the connection stays: %v", err)
			}
		})
	}
}

// TestFirstBytes: an upload takes a place only when its first bytes have come, all of it where it is smaller;
// what came is not lost. The node that forwards one waits in front.
func TestFirstBytes(t *testing.T) {
	const first = 10_000
	h, srv := serveOn(t, reader{}, readyNode{})
	h.FirstBytes = first
	places := func() int {
		h.uploads.mu.Lock()
		defer h.uploads.mu.Unlock()
		return len(h.uploads.running)
	}
	for size, before := range map[int]int{3 * first: first - 1, first - 1: first - 2} {
		conn := dial(t, srv)
		received := h.rx.Load()
		fmt.Fprintf(conn, "PUT /v1/images/alice/a.png HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", size,
			make([]byte, before))
		poll.Until(t, 10*time.Second, "the first bytes", func() bool {
			return h.rx.Load() == received+int64(before)
		})
		if n := places(); n != 0 {
			t.Errorf("%d places after %d of %d bytes", n, before, size)
		}
		if size > first {
			conn.Write([]byte{0})
			poll.Until(t, 10*time.Second, "a place", func() bool { return places() == 1 })
			before++
		}
		conn.Write(make([]byte, size-before))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != http.StatusCreated {
			t.Errorf("%d bytes: %v, %v", size, resp, err)
		}
	}
	conn := dial(t, srv)
	fmt.Fprintf(conn, "PUT /v1/images/alice/a.png HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\nx", first)
	conn.(*net.TCPConn).CloseWrite()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a body that ends before: %v, %v", resp, err)
	}
	away := &leaving{to: 2, await: errLeft}
	h, srv = serveOn(t, away, away)
	h.FirstBytes = first
	h.Forward = reach{}
	conn = dial(t, srv)
	fmt.Fprintf(conn, "PUT /v1/images/alice/a.png HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\nx", first)
	poll.Until(t, 10*time.Second, "a byte", func() bool { return h.rx.Load() == 1 })
	h.forwards.mu.Lock()
	defer h.forwards.mu.Unlock()
	if n := len(h.forwards.running); n != 0 {
		t.Errorf("%d are forwarded", n)
	}
}

// TestSlowRequestsKeepNoConnection: when slow requests of any kind have all connections, an upload that moves
// gets one, and those that give way are answered.
func TestSlowRequestsKeepNoConnection(t *testing.T) {
	const some = "Content-Type: application/json\r\nContent-Length: 9999\r\n\r\n{"
	for request, status := range map[string]int{
		"PUT /v1/images/alice/a.png HTTP/1.1\r\nHost: x\r\n" + some: 429, // it has not begun
		"GET /v1/images/alice/a.png HTTP/1.1\r\nHost: x\r\n\r\n":    429, // it waits for others
		"POST /v1/members HTTP/1.1\r\nHost: x\r\n" + some:           429,
		"PUT /nothing HTTP/1.1\r\nHost: x\r\n" + some:               404, // its body is not wanted
	} {
		t.Run(request[:16], func(t *testing.T) {
			t.Parallel()
			h, _ := serveOn(t, reader{}, readyNode{})
			h.FirstBytes, h.BusyRate, h.BusyGrace = 1000, 10_000, 200*time.Millisecond
			h.reads.all, h.reads.wait = 0, time.Minute
			const most = 4
			limited := httptest.NewUnstartedServer(h)
			server := connlimit.New(limited.Config, connlimit.Options{
				Max: most, PerAddress: most, Reserve: 1, ReservePerAddress: 1, Class: ConnectionClass,
				Refuse: http.HandlerFunc(h.RefuseConnection), Logger: zap.NewNop(),
			})
			done := make(chan error)
			go func() { done <- server.Serve(limited.Listener) }()
			defer func() {
				limited.Config.Close()
				<-done
			}()
			answers := make(chan *http.Response, most)
			for range most {
				conn := dial(t, limited)
				fmt.Fprint(conn, request)
				go func() {
					resp, _ := http.ReadResponse(bufio.NewReader(conn), nil)
					answers <- resp
				}()
			}
			poll.Until(t, 10*time.Second, "an upload to be stored", func() bool {
				conn := dial(t, limited)
				defer conn.Close()
				fmt.Fprint(conn, "PUT /v1/images/alice/b.png HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				return err == nil && resp.StatusCode == http.StatusCreated
			})
			switch resp := <-answers; {
			case resp == nil:
				t.Error("one was not answered")
			case resp.StatusCode != status:
				t.Errorf("one was answered with %s", resp.Status)
			case status == http.StatusTooManyRequests && resp.Header.Get("Retry-After") == "":
				t.Error("no Retry-After")
			}
		})
	}
}

// roomy is a reader with room for what ingest has room for.
type roomy struct{ reader }

func (r roomy) Put(ctx context.Context, req image.Request, body io.Reader) (*image.Record, error) {
	many := struct{ io.Reader }{bufio.NewReaderSize(body, 256<<10)}
	return r.reader.Put(ctx, req, many)
}

// TestRequestAfterBody: the request that comes in one packet with the end of a body is served, however the
// body was read.
func TestRequestAfterBody(t *testing.T) {
	const uploads, size, piece = 3, 2<<20 + 1, 3000
	h, _ := serveOn(t, roomy{}, readyNode{})
	h.ImageBytes = size
	limited := httptest.NewUnstartedServer(h)
	server := connlimit.New(limited.Config, connlimit.Options{
		Max: 4, PerAddress: 4, Reserve: 1, ReservePerAddress: 1, Class: ConnectionClass,
		Refuse: http.HandlerFunc(h.RefuseConnection), Logger: zap.NewNop(),
	})
	done := make(chan error)
	go func() { done <- server.Serve(limited.Listener) }()
	defer func() {
		limited.Config.Close()
		<-done
	}()
	conn := dial(t, limited)
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	var requests bytes.Buffer
	for range uploads {
		fmt.Fprintf(&requests, "PUT /v1/images/alice/a.png HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"+
			"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", size, make([]byte, size))
	}
	go func() {
		for requests.Len() > 0 {
			conn.Write(requests.Next(piece))
		}
	}()
	answers := bufio.NewReader(conn)
	for i := range 2 * uploads {
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		io.Copy(io.Discard, resp.Body)
		if want := []int{http.StatusCreated, http.StatusOK}[i%2]; resp.StatusCode != want {
			t.Errorf("answer %d: %s, want %d", i, resp.Status, want)
		}
	}
	if got := h.rx.Load(); got != uploads*size {
		t.Errorf("%d bytes of bodies were read, %d sent", got, uploads*size)
	}
}
