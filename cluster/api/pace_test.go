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

	"imgcluster/cluster/clustertest/poll"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// reader is a node that reads what it is given.
type reader struct{ Images }

func (reader) Put(_ context.Context, req image.Request, body io.Reader) (*image.Record, error) {
	n, err := io.Copy(io.Discard, body)
	if err == nil && n != req.Size {
		err = io.ErrUnexpectedEOF
	}
	return &image.Record{User: req.User, Name: req.Name, Bytes: n, Owner: 1}, err
}

const (
	paceRate  = 20_000
	paceGrace = 1500 * time.Millisecond
	paceIdle  = 20 * time.Second
)

// servePaced is a node that requires paceRate: for clients and for other nodes.
func servePaced(t *testing.T, i Images) (clients, nodes *httptest.Server) {
	t.Helper()
	h, srv := serveOn(t, i, readyNode{})
	h.BodyRate = paceRate
	h.BodyGrace = paceGrace
	h.BodyIdle = paceIdle
	return srv, servePeers(t, h)
}

func dial(t *testing.T, srv *httptest.Server) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return conn
}

// upload sends size bytes, `step` for every `every` that has gone by, until the node answers.
func upload(t *testing.T, conn net.Conn, header string, size, step int, every time.Duration) (
	*http.Response, string,
) {
	t.Helper()
	fmt.Fprintf(conn, "PUT /v1/images/alice/a.png HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n", size,
		header)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		tick := time.NewTicker(min(every, 50*time.Millisecond))
		defer tick.Stop()
		began := time.Now()
		for sent := 0; sent < size; {
			due := min(size, step*int(1+time.Since(began)/every))
			if _, err := conn.Write(make([]byte, due-sent)); err != nil {
				return
			}
			sent = due
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

// TestSlowBody: what moves at the least rate takes as long as it takes; what does not is cut with an answer
// that names the setting, whether it trickles or stops.
func TestSlowBody(t *testing.T) {
	clients, nodes := servePaced(t, reader{})
	for _, test := range []struct {
		name, header string
		size, step   int
		every        time.Duration
		status       int
		says         string
	}{
		// 40 kB/s for four times the grace
		{"moves", "", 240_000, 1200, 30 * time.Millisecond, 201, `"committed":true`},
		{"trickles", "", 60_000, 1, 20 * time.Millisecond, 408, "(limits.body_rate)"},
		{"stops", "", 60_000, 30_000, time.Hour, 408, "(limits.body_rate)"},
		{
			"trickles through another node", "Imgcluster-Relayed: true\r\n", 60_000, 1, 20 * time.Millisecond,
			408, "(limits.body_rate)",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			srv := clients
			if test.header != "" {
				srv = nodes
			}
			began := time.Now()
			resp, text := upload(t, dial(t, srv), test.header, test.size, test.step, test.every)
			if resp.StatusCode != test.status || !strings.Contains(text, test.says) {
				t.Errorf("%s: %s", resp.Status, text)
			}
			if took := time.Since(began); took > paceIdle {
				t.Errorf("it took %v", took)
			}
		})
	}
	t.Run("idle", func(t *testing.T) {
		h, srv := serveOn(t, reader{}, readyNode{})
		h.BodyIdle = 50 * time.Millisecond
		if resp, text := upload(t, dial(t, srv), "", 60_000, 100, time.Hour); resp.StatusCode != 408 ||
			!strings.Contains(text, "timeouts.body_idle") {
			t.Errorf("%s: %s", resp.Status, text)
		}
	})
}

// TestOtherBodiesArePaced: no path waits for a body that trickles, whatever it does with it.
func TestOtherBodiesArePaced(t *testing.T) {
	clients, nodes := servePaced(t, reader{})
	for _, path := range []string{
		"POST /internal/v1/hello", "POST /internal/v1/join", "POST /v1/members", "PUT /v1/images/",
		"PUT /nothing",
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			srv := clients
			if strings.Contains(path, wire.InternalPath) {
				srv = nodes
			}
			conn := dial(t, srv)
			fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n", path)
			go func() {
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()
				for range tick.C {
					if _, err := conn.Write([]byte{0}); err != nil {
						return
					}
				}
			}()
			began := time.Now()
			io.Copy(io.Discard, conn) // to its end
			if took := time.Since(began); took > paceIdle {
				t.Errorf("the connection was open for %v", took)
			}
		})
	}
}

// TestRefusedAtOnce: what a node refuses by its header it answers before the body comes, and still reads
// that for clients that send all before they look.
func TestRefusedAtOnce(t *testing.T) {
	_, srv := serveOn(t, reader{}, readyNode{})
	for header, status := range map[string]int{
		"Transfer-Encoding: chunked":                          411,
		"Content-Length: 1048577":                             413,
		"Content-Length: 1000\r\nIdempotency-Key: x":          400,
		"Content-Length: 600000\r\nImgcluster-Broadcast: 7":   400,
		"Content-Length: 100000000\r\nExpect: 100-continue":   413,
		"Transfer-Encoding: chunked\r\nExpect: 100-continue":  411,
		"Content-Length: 1000\r\nContent-Digest: sha-256=:x:": 400,
	} {
		t.Run(header, func(t *testing.T) {
			t.Parallel()
			conn := dial(t, srv)
			fmt.Fprintf(conn, "PUT /v1/images/alice/a.png HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", header)
			answer := bufio.NewReader(conn)
			resp, err := http.ReadResponse(answer, nil)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != status || !resp.Close ||
				!strings.Contains(string(text), `"hint":`) {
				t.Errorf("%s, closed %v: %s, %v", resp.Status, resp.Close, text, err)
			}
		})
	}
	conn := dial(t, srv)
	fmt.Fprint(conn, "PUT /v1/images/alice/a.png HTTP/1.1\r\nHost: x\r\nContent-Length: 1500000\r\n\r\n")
	if n, err := io.Copy(conn, bytes.NewReader(make([]byte, 1_500_000))); err != nil {
		t.Errorf("a client that sends all first could send %d bytes: %v", n, err)
	}
	if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != 413 {
		t.Errorf("it then reads %v, %v", resp, err)
	}
}

// TestSlowReader: an answer that is taken at the least rate continues, a slower one is cut.
func TestSlowReader(t *testing.T) {
	const size = 24 << 20 // more than the kernel keeps
	content := newFlaky(size, size, nil)
	h, srv := serve(t, &shelf{contents: []wire.Content{content}})
	h.BodyRate = 1 << 20
	h.BodyGrace = paceGrace
	h.BodyIdle = paceIdle
	// read takes `step` bytes for every 50 ms that have gone by.
	read := func(step int) (int64, error) {
		conn := dial(t, srv)
		conn.(*net.TCPConn).SetReadBuffer(256 << 10)
		fmt.Fprint(conn, "GET /v1/images/alice/a.png HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Error(err)
			return 0, err
		}
		defer resp.Body.Close()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		began := time.Now()
		for n := int64(0); ; <-tick.C {
			due := int64(step) * int64(1+time.Since(began)/(50*time.Millisecond))
			if content.closed.Load() { // nothing more is sent
				due = 2 * size
			}
			m, err := io.CopyN(io.Discard, resp.Body, due-n)
			if n += m; err != nil {
				return n, err
			}
		}
	}
	if n, err := read(200 << 10); n != size || err != io.EOF { // 4 MiB/s, for four times the grace
		t.Errorf("a reader that moves got %d bytes: %v", n, err)
	}
	content.closed.Store(false)
	done := make(chan int64)
	go func() {
		n, _ := read(100)
		done <- n
	}()
	poll.Until(t, time.Minute, "the node to leave a reader that is too slow", content.closed.Load)
	srv.CloseClientConnections()
	if n := <-done; n == size {
		t.Error("it got all")
	}
}
