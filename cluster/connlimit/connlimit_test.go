package connlimit

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"imgcluster/cluster/bulkio"
	"imgcluster/cluster/clustertest/poll"
)

// server is a server with a limit of 8 connections and a reserve of 4. Requests of /busy and /long last until
// the test ends, those of /moves and /waits at most; see crawl.
type server struct {
	t    *testing.T
	addr string
	logs *observer.ObservedLogs
	tls  bool
	*Server
}

const most, reserve = 8, 4

func start(t *testing.T) *server {
	return startWith(t, Options{PerAddress: most, ReservePerAddress: reserve})
}

// startWith is start with TLS, or with limits of one address.
func startWith(t *testing.T, o Options) *server {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.DebugLevel)
	over := make(chan struct{})
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		late, _ := strconv.Atoi(r.URL.RawQuery)
		c := &crawler{time.Duration(late) * time.Second, make(chan struct{})}
		switch r.URL.Path {
		case "/busy", "/long":
			http.NewResponseController(w).Flush()
		case "/moves":
			Moves(r.Context(), c)
		case "/waits":
			defer Waits(r.Context(), c)()
		default:
			return
		}
		select {
		case <-over:
		case <-r.Context().Done():
		case <-c.out:
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	})}
	o.Max, o.Reserve, o.Logger = most, reserve, zap.New(core)
	o.Class = func(r *http.Request) Class {
		return map[string]Class{"/probe": Short, "/long": Long}[r.URL.Path]
	}
	o.Refuse = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTooManyRequests)
	})
	limited := New(srv, o)
	done := make(chan error, 1)
	go func() { done <- limited.Serve(l) }()
	t.Cleanup(func() {
		close(over)
		srv.Close()
		if err := <-done; err != http.ErrServerClosed {
			t.Error(err)
		}
	})
	return &server{t, l.Addr().String(), logs, o.TLS != nil, limited}
}

// conn opens a connection that ends with the test.
func (s *server) conn() net.Conn {
	s.t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if s.tls {
		return tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	return c
}

// ask sends a request on a connection. It returns the status of the answer, 0 when the server has closed the
// connection, and whether the connection is closed after it.
func (s *server) ask(c net.Conn, path string) (status int, closes bool) {
	s.t.Helper()
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		if e, ok := err.(net.Error); ok && e.Timeout() {
			s.t.Fatal("no answer")
		}
		return 0, true
	}
	return resp.StatusCode, resp.Close
}

func (s *server) expectStatus(c net.Conn, path string, status int, closes bool) {
	s.t.Helper()
	if got, ends := s.ask(c, path); got != status || ends != closes {
		s.t.Errorf("%s: status %d, closed after it %v; want %d, %v", path, got, ends, status, closes)
	}
}

// waitIdle waits until the server has n idle connections.
func (s *server) waitIdle(n int) {
	s.t.Helper()
	poll.Until(s.t, 10*time.Second, fmt.Sprintf("%d idle connections", n), func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.lists[idle].Len() == n
	})
}

// idleSince returns when the server's end of a connection became idle; zero while it is not.
func idleSince(t *table, c net.Conn) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	for at := t.lists[idle].Front(); at != nil; at = at.Next() {
		if e := at.Value.(*entry); e.conn.RemoteAddr().String() == c.LocalAddr().String() {
			return e.since
		}
	}
	return time.Time{}
}

// logged returns the number of log lines of a level: warnings say that the limit is reached, information that
// it no longer is.
func (s *server) logged(level zapcore.Level) int { return s.logs.FilterLevelExact(level).Len() }

// TestIdleConnectionsMakeWay: at the limit new connections are served, and those that have been idle longest
// are closed; it is logged once.
func TestIdleConnectionsMakeWay(t *testing.T) {
	s := start(t)
	var idle []net.Conn
	for range most {
		c := s.conn()
		s.expectStatus(c, "/", http.StatusOK, false)
		idle = append(idle, c)
		s.waitIdle(len(idle))
	}
	before := idleSince(s.table, idle[0])
	s.expectStatus(idle[0], "/", http.StatusOK, false) // now the second has been idle longest
	poll.Until(t, 10*time.Second, "it to be idle again", func() bool {
		return idleSince(s.table, idle[0]).After(before)
	})
	for range 3 {
		s.expectStatus(s.conn(), "/", http.StatusOK, false)
		s.waitIdle(most)
	}
	for i, c := range idle {
		if i >= 1 && i <= 3 {
			s.expectStatus(c, "/", 0, true)
		} else {
			s.expectStatus(c, "/", http.StatusOK, false)
		}
	}
	if n := s.logged(zap.WarnLevel); n != 1 {
		t.Errorf("it was logged %d times", n)
	}
	for _, c := range idle {
		c.Close()
	}
	poll.Until(t, 10*time.Second, "the end to be logged", func() bool { return s.logged(zap.InfoLevel) == 1 })
}

// TestAllBusy: while no connection is idle, requests that must be answered are; others are refused and their
// connections closed.
func TestAllBusy(t *testing.T) {
	s := start(t)
	var busy []net.Conn
	for range most {
		c := s.conn()
		s.expectStatus(c, "/busy", http.StatusOK, false)
		busy = append(busy, c)
	}
	for range 3 * reserve {
		c := s.conn()
		s.expectStatus(c, "/probe", http.StatusOK, true)
		s.expectStatus(s.conn(), "/", http.StatusTooManyRequests, true)
		c.Close()
	}
	for range reserve / 2 {
		s.expectStatus(s.conn(), "/long", http.StatusOK, true)
	}
	s.expectStatus(s.conn(), "/long", http.StatusTooManyRequests, true)
	s.expectStatus(s.conn(), "/probe", http.StatusOK, true)
	late := s.conn() // moves within the limit when there is room
	busy[0].Close()
	poll.Until(t, 10*time.Second, "a request on a connection within the limit", func() bool {
		status, closes := s.ask(late, "/")
		if closes {
			late = s.conn()
		}
		return status == http.StatusOK && !closes
	})
	if n := s.logged(zap.WarnLevel); n != 1 {
		t.Errorf("it was logged %d times", n)
	}
}

// TestSilentConnections: connections that never send a request are closed in favour of others, also in the
// reserve.
func TestSilentConnections(t *testing.T) {
	s := start(t)
	var silent []net.Conn
	for range most + reserve {
		silent = append(silent, s.conn())
	}
	over := s.conn()
	if text, err := io.ReadAll(over); err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 503") {
		t.Errorf("above the reserve: %q, %v", text, err)
	}
	poll.Until(t, 20*time.Second, "a new connection to be served", func() bool {
		status, _ := s.ask(s.conn(), "/")
		return status == http.StatusOK
	})
	s.expectStatus(silent[0], "/", 0, true)
}

// TestServerWideOptions: net/http answers "OPTIONS *" without the handler, on connections of the reserve too,
// which are idle then. They stay in the reserve, and make way for others.
func TestServerWideOptions(t *testing.T) {
	s := start(t)
	for range most {
		fmt.Fprint(s.conn(), "GET /busy HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	poll.Until(t, 10*time.Second, "busy connections", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.within == most && s.lists[silent].Len() == 0
	})
	for range 2 * reserve {
		c := s.conn()
		fmt.Fprint(c, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatal(err)
		}
		poll.Until(t, 10*time.Second, "no connection without a request", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.lists[silent].Len() == 0
		})
	}
	s.mu.Lock()
	if s.within != most || len(s.conns)-s.within > reserve {
		t.Errorf("%d connections within a limit of %d, %d above with a reserve of %d",
			s.within, most, len(s.conns)-s.within, reserve)
	}
	s.mu.Unlock()
	s.expectStatus(s.conn(), "/probe", http.StatusOK, true)
}

// TestClosedBeforeItsRequest: a request whose connection was closed in favour of another one just before is
// not served, and the connection is not counted any more.
func TestClosedBeforeItsRequest(t *testing.T) {
	table := newTable(Options{Max: 1, PerAddress: 2, Reserve: 1, ReservePerAddress: 1, Logger: zap.NewNop()})
	pipe := func() *bulkio.Conn {
		a, b := net.Pipe()
		t.Cleanup(func() { a.Close(); b.Close() })
		return bulkio.NewConn(a)
	}
	first := pipe()
	second := pipe()
	table.admit(first, first)
	table.changed(first, http.StateActive)
	table.admit(second, second)
	e := table.conns[second]
	table.mu.Lock()
	table.closeFor(e)
	table.mu.Unlock()
	table.changed(second, http.StateActive)
	table.changed(first, http.StateClosed)

	served := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("served") })
	r := httptest.NewRequest(http.MethodDelete, "/", nil)
	func() {
		defer func() {
			if got := recover(); got != http.ErrAbortHandler {
				t.Errorf("ended with %v", got)
			}
		}()
		ctx := context.WithValue(r.Context(), entryKey{}, e)
		table.serve(served, httptest.NewRecorder(), r.WithContext(ctx))
	}()
	if table.within != 0 || len(table.conns) != 0 {
		t.Errorf("%d connections within the limit, %d in all", table.within, len(table.conns))
	}
}

// TestSilentConnectionsInQuickSuccession: so are they when none is older than headerAgeMin.
func TestSilentConnectionsInQuickSuccession(t *testing.T) {
	s := start(t)
	for i := range 3 * (most + reserve) {
		last := s.conn()
		poll.Until(t, 10*time.Second, "the server to have the new connection", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			newest := s.lists[silent].Back()
			if newest == nil || newest.Value.(*entry).conn.RemoteAddr().String() != last.LocalAddr().String() {
				return false
			}
			for at := s.lists[silent].Front(); at != nil; at = at.Next() {
				at.Value.(*entry).since = time.Now().Add(-headerAgeMin)
			}
			return true
		})
		if i >= most+reserve {
			s.expectStatus(s.conn(), "/probe", http.StatusOK, false)
		}
	}
}

// certificate returns a TLS side of a server.
func certificate(t *testing.T) *tls.Config {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	return &tls.Config{Certificates: s.TLS.Certificates}
}

// TestTLS: connections make way under TLS too, and those above the reserve are closed without a handshake.
func TestTLS(t *testing.T) {
	s := startWith(t, Options{PerAddress: most, ReservePerAddress: reserve, TLS: certificate(t)})
	var idle []net.Conn
	for range most {
		idle = append(idle, s.conn())
		s.expectStatus(idle[len(idle)-1], "/", http.StatusOK, false)
		s.waitIdle(len(idle))
	}
	s.expectStatus(s.conn(), "/busy", http.StatusOK, false)
	s.expectStatus(idle[0], "/", 0, true)
	for range most - 1 {
		s.expectStatus(s.conn(), "/busy", http.StatusOK, false)
	}
	s.expectStatus(s.conn(), "/", http.StatusTooManyRequests, true)
	for range reserve / 2 {
		s.expectStatus(s.conn(), "/long", http.StatusOK, true)
	}
	var silent []net.Conn
	for range reserve / 2 {
		silent = append(silent, s.conn())
	}
	over := s.conn().(*tls.Conn).NetConn()
	if n, err := io.Copy(io.Discard, over); n != 0 || err != nil {
		t.Errorf("above the reserve %d bytes came, %v", n, err)
	}
	for _, c := range silent {
		c.Close()
	}
}

// pipes is a listener of connections in memory, which buffer nothing.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// TestUnreadTLS: a client that reads nothing holds up neither whoever needs its connection, nor the end of
// the server, although TLS has one more thing to say to it.
func TestUnreadTLS(t *testing.T) {
	config := certificate(t)
	synctest.Test(t, func(t *testing.T) {
		ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
		s := New(&http.Server{Handler: ok}, Options{
			Max: 2, PerAddress: 2, Reserve: 1, ReservePerAddress: 1, Logger: zap.NewNop(), TLS: config,
		})
		l := make(pipes)
		done := make(chan error, 1)
		go func() { done <- s.Serve(l) }()
		began := time.Now()
		for range 4 {
			here, there := net.Pipe()
			l <- there
			c := tls.Client(here, &tls.Config{InsecureSkipVerify: true})
			fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
				t.Error(err)
			}
			synctest.Wait() // it is idle
		}
		if s.lists[idle].Len() != 2 {
			t.Errorf("%d idle connections", s.lists[idle].Len())
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
		if err := <-done; err != http.ErrServerClosed {
			t.Error(err)
		}
	})
}

// connFrom opens a connection from one of the host's addresses.
func (s *server) connFrom(address string) net.Conn {
	s.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	c, err := d.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// TestOneAddress: an address that has as many connections as it may closes its own idle ones with more, and
// nobody else's; what it keeps busy leaves places for others, in the reserve too.
func TestOneAddress(t *testing.T) {
	const own, ofReserve = 5, 2
	s := startWith(t, Options{PerAddress: own, ReservePerAddress: ofReserve})
	other := s.connFrom("127.0.0.1")
	s.expectStatus(other, "/", http.StatusOK, false)
	s.waitIdle(1)
	var greedy []net.Conn
	for n := range own {
		greedy = append(greedy, s.connFrom("127.0.0.2"))
		s.expectStatus(greedy[n], "/", http.StatusOK, false)
		s.waitIdle(n + 2)
	}
	for range 3 {
		s.expectStatus(s.connFrom("127.0.0.2"), "/", http.StatusOK, false)
		s.waitIdle(own + 1)
	}
	s.expectStatus(greedy[0], "/", 0, true)
	s.expectStatus(other, "/", http.StatusOK, false)
	s.waitIdle(own + 1)
	if n := s.logged(zap.WarnLevel); n != 1 {
		t.Errorf("it was logged %d times", n)
	}
	for range own {
		s.expectStatus(s.connFrom("127.0.0.2"), "/busy", http.StatusOK, false)
	}
	s.expectStatus(s.connFrom("127.0.0.2"), "/", http.StatusTooManyRequests, true)
	poll.Until(t, 10*time.Second, "the refused connection to be gone", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.count(true) == 0
	})
	for range ofReserve {
		s.expectStatus(s.connFrom("127.0.0.2"), "/long", http.StatusOK, true)
	}
	if text, _ := io.ReadAll(s.connFrom("127.0.0.2")); !strings.HasPrefix(string(text), "HTTP/1.1 503") {
		t.Errorf("above its part of the reserve: %q", text)
	}
	s.expectStatus(other, "/", http.StatusOK, false)
	s.waitIdle(1)
	for range most - own - 1 {
		s.expectStatus(s.connFrom("127.0.0.3"), "/busy", http.StatusOK, false)
	}
	s.expectStatus(s.connFrom("127.0.0.3"), "/", http.StatusOK, false) // in place of other, which is idle
	s.waitIdle(1)
	s.expectStatus(s.connFrom("127.0.0.3"), "/probe", http.StatusOK, false)
}

// TestAddress: what one host may have all of counts as one address.
func TestAddress(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1:1", "192.0.2.1:2", true},
		{"192.0.2.1:1", "192.0.2.2:1", false},
		{"192.0.2.1:1", "[::ffff:192.0.2.1]:2", true},
		{"[2001:db8::1]:1", "[2001:db8::ffff:2]:2", true},
		{"[2001:db8::1]:1", "[2001:db8:0:1::1]:1", false},
		{"[fe80::1%eth0]:1", "[fe80::2%eth1]:1", true},
		{"pipe", "@", true},
	} {
		if got := Address(c.a) == Address(c.b); got != c.same {
			t.Errorf("%s and %s are one address: %v", c.a, c.b, got)
		}
	}
}

// crawler is a request that is late by so much, until it gives way.
type crawler struct {
	late time.Duration
	out  chan struct{}
}

func (c *crawler) Late(time.Time) time.Duration { return c.late }
func (c *crawler) GiveWay()                     { close(c.out) }

// crawl sends a request that lasts until it gives way: of /moves, late by so many seconds, or of /waits.
func (s *server) crawl(address, path string, late int) net.Conn {
	s.t.Helper()
	c := s.connFrom(address)
	fmt.Fprintf(c, "GET %s?%d HTTP/1.1\r\nHost: x\r\n\r\n", path, late)
	poll.Until(s.t, 10*time.Second, "the request to be under way", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, e := range s.conns {
			if e.conn.RemoteAddr().String() == c.LocalAddr().String() {
				return e.mover != nil
			}
		}
		return false
	})
	return c
}

// expectAnswer expects an answer of this status on a connection that waits for one.
func (s *server) expectAnswer(c net.Conn, status int) {
	s.t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != status || !resp.Close {
		s.t.Errorf("answered %v, %v, want %d", resp, err, status)
	}
}

// TestSlowRequestsGiveWay: when all connections are busy, the request that is too slow gives way to a new
// connection: the latest of the address that has most. Those that move are not touched.
func TestSlowRequestsGiveWay(t *testing.T) {
	s := startWith(t, Options{PerAddress: 6, ReservePerAddress: reserve})
	one := s.crawl("127.0.0.1", "/moves", 100)
	var two []net.Conn
	for _, late := range []int{0, 2, 3, 0, -5} {
		two = append(two, s.crawl("127.0.0.2", "/moves", late))
	}
	s.crawl("127.0.0.3", "/moves", 0)
	s.crawl("127.0.0.3", "/moves", 0)
	s.crawl("127.0.0.4", "/moves", 0)
	s.expectAnswer(two[2], http.StatusTooManyRequests)
	s.crawl("127.0.0.4", "/moves", 0)
	s.expectAnswer(two[1], http.StatusTooManyRequests)
	s.crawl("127.0.0.4", "/moves", 0)
	s.expectAnswer(one, http.StatusTooManyRequests)
	s.expectStatus(s.connFrom("127.0.0.5"), "/", http.StatusTooManyRequests, true)
}

// TestSlowRequestsOfOneAddress: at its own limit an address has its own give way.
func TestSlowRequestsOfOneAddress(t *testing.T) {
	s := startWith(t, Options{PerAddress: 2, ReservePerAddress: 1})
	other := s.crawl("127.0.0.1", "/moves", 100)
	s.crawl("127.0.0.2", "/moves", 0)
	own := s.crawl("127.0.0.2", "/moves", 1)
	s.crawl("127.0.0.2", "/moves", 0)
	s.expectAnswer(own, http.StatusTooManyRequests)
	s.expectStatus(s.connFrom("127.0.0.2"), "/", http.StatusTooManyRequests, true)
	other.SetReadDeadline(time.Now())
	if _, err := other.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the request of the other address ended: %v", err)
	}
}

// TestWaitingRequestsGiveWay: what holds nothing yet gives way when it has waited, the oldest first, and
// before a connection that was used just now.
func TestWaitingRequestsGiveWay(t *testing.T) {
	s := start(t)
	used := s.conn()
	s.expectStatus(used, "/", http.StatusOK, false)
	s.waitIdle(1)
	var waits []net.Conn
	for range most - 1 {
		waits = append(waits, s.crawl("127.0.0.1", "/waits", 0))
	}
	s.mu.Lock()
	for at := s.lists[silent].Front(); at != nil; at = at.Next() {
		at.Value.(*entry).since = time.Now().Add(-headerAgeMin)
	}
	s.mu.Unlock()
	for i := range 3 {
		s.crawl("127.0.0.1", "/moves", 0)
		s.expectAnswer(waits[i], http.StatusTooManyRequests)
	}
	s.expectStatus(used, "/", http.StatusOK, false)
}
