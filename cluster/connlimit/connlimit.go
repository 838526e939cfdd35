// Package connlimit limits the open connections of an HTTP server, so that a client that opens many and
// leaves them idle does not lock others out. At the limit the connection that has been idle longest is closed
// in favour of the new one. When all are busy, a reserve above the limit still serves the requests that must
// always be answered. It is between the API's listener and its handler.
package connlimit

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Class is how a request on a reserve connection is treated.
type Class int

// The classes. Long requests, such as streams, may use half of the reserve.
const (
	Refused Class = iota // answered by Options.Refuse
	Short
	Long
)

// Options are the limits of a server. All but TLS are required.
type Options struct {
	Max     int // connections
	Reserve int // connections above Max
	Class   func(*http.Request) Class
	Refuse  http.Handler // answers Refused requests
	Logger  *zap.Logger
	TLS     *tls.Config // for the connections; nil: plain HTTP
}

// headerAge is how long a new connection may take to send the header of its first request before it counts as
// idle. When all are newer, headerAgeMin counts instead: otherwise a client that opens connections fast
// enough would keep all others out.
const (
	headerAge    = time.Second
	headerAgeMin = 100 * time.Millisecond
)

// refusal is the answer when the reserve is used up too, before a request is read. Under TLS there is none,
// for that would need a handshake, which is work.
const refusal = "HTTP/1.1 503 Service Unavailable\r\n" +
	"Connection: close\r\n" +
	"Retry-After: 1\r\n" +
	"Content-Length: 0\r\n\r\n"

// table holds the open connections.
type table struct {
	Options
	mu      sync.Mutex
	conns   map[net.Conn]*entry
	within  int       // number within Max; the others are of the reserve
	long    int       // number of the reserve with a Long request
	silent  list.List // of *entry: have sent no header yet, oldest first
	idle    list.List // of *entry: between two requests, longest first
	atLimit bool      // from the log line that the limit is reached to the one that it no longer is
	closed  int       // connections closed for others, while atLimit
	refused int       // requests and connections refused, while atLimit
}

// entry is one connection.
type entry struct {
	conn    net.Conn // as the server has it
	raw     net.Conn // without TLS
	reserve bool
	since   time.Time  // when it was put into its list
	list    *list.List // silent, idle or nil
	element *list.Element
}

type entryKey struct{}

// Server is an HTTP server with limited connections.
type Server struct {
	*table
	http *http.Server
}

// New limits the connections of a server that does not serve yet. It sets the server's ConnState and
// ConnContext and wraps its handler.
func New(server *http.Server, o Options) *Server {
	t := newTable(o)
	server.ConnState = t.changed
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		t.mu.Lock()
		defer t.mu.Unlock()
		return context.WithValue(ctx, entryKey{}, t.conns[c])
	}
	inner := server.Handler
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.serve(inner, w, r) })
	return &Server{t, server}
}

func newTable(o Options) *table { return &table{Options: o, conns: map[net.Conn]*entry{}} }

// Serve is that of http.Server.
func (s *Server) Serve(l net.Listener) error { return s.http.Serve(&listener{l, s.table}) }

// Shutdown lets the requests in progress end, and at the end of ctx closes their connections. Neither waits
// for a client that reads nothing.
func (s *Server) Shutdown(ctx context.Context) error {
	s.closeAll(&s.idle)
	if s.http.Shutdown(ctx) == nil {
		return nil
	}
	s.closeAll(nil)
	return s.http.Close()
}

// closeAll closes the connections in a list, or with nil all. The server notices, and removes them.
func (t *table) closeAll(l *list.List) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.conns {
		if l == nil || e.list == l {
			e.raw.Close()
		}
	}
}

type listener struct {
	net.Listener
	t *table
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := raw
		if l.t.TLS != nil {
			c = tls.Server(raw, l.t.TLS)
		}
		if l.t.admit(c, raw) {
			return c, nil
		}
		if l.t.TLS == nil {
			raw.SetWriteDeadline(time.Now().Add(headerAge))
			raw.Write([]byte(refusal)) // an error does not matter: the connection is closed
		}
		raw.Close()
	}
}

// admit adds a new connection, and reports whether there was room for it.
func (t *table) admit(c, raw net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := &entry{conn: c, raw: raw}
	switch {
	case t.makeRoom(false):
		t.within++
	case t.makeRoom(true):
		e.reserve = true
	default:
		t.refused++
		return false
	}
	t.conns[c] = e
	e.moveTo(&t.silent)
	return true
}

// makeRoom reports whether there is room within the limit, or in the reserve, after closing a connection if
// necessary. The caller holds mu.
func (t *table) makeRoom(reserve bool) bool {
	open := t.within
	limit := t.Max
	if reserve {
		open = len(t.conns) - t.within
		limit = t.Reserve
	}
	if open < limit {
		return true
	}
	t.logAtLimit()
	return t.closeOldest(&t.silent, reserve, headerAge) ||
		t.closeOldest(&t.idle, reserve, 0) || // in the reserve after "OPTIONS *", which no handler sees
		t.closeOldest(&t.silent, reserve, headerAgeMin)
}

// closeOldest closes the connection that has been in a list longest, when that is as long as age, and reports
// whether it did. The caller holds mu.
func (t *table) closeOldest(l *list.List, reserve bool, age time.Duration) bool {
	for at := l.Front(); at != nil; at = at.Next() {
		e := at.Value.(*entry)
		if time.Since(e.since) < age {
			break
		}
		if e.reserve == reserve {
			t.closeFor(e)
			return true
		}
	}
	return false
}

// closeFor closes a connection in favour of another one. The caller holds mu.
func (t *table) closeFor(e *entry) {
	t.closed++
	t.remove(e)
	e.raw.Close() // its reader gets an error; to close TLS would wait for room to say so
}

// remove removes a connection from the table. The caller holds mu.
func (t *table) remove(e *entry) {
	e.moveTo(nil)
	delete(t.conns, e.conn)
	if !e.reserve {
		t.within--
	}
}

// moveTo moves the entry to the end of a list, or with nil out of its list. The caller holds the table's mu.
func (e *entry) moveTo(l *list.List) {
	if e.list != nil {
		e.list.Remove(e.element)
	}
	e.list = l
	if l != nil {
		e.since = time.Now()
		e.element = l.PushBack(e)
	}
}

// changed is the server's ConnState hook.
func (t *table) changed(c net.Conn, state http.ConnState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.conns[c]
	if e == nil { // closed in favour of another one
		return
	}
	switch state {
	case http.StateActive: // the header of a request has come
		e.moveTo(nil)
	case http.StateIdle:
		e.moveTo(&t.idle)
	case http.StateClosed, http.StateHijacked:
		t.remove(e)
		t.logBelowLimit()
	}
}

// logAtLimit logs once that connections are closed or refused from now on. The caller holds mu.
func (t *table) logAtLimit() {
	if t.atLimit {
		return
	}
	t.atLimit = true
	t.Logger.Warn("API connections reached their limit (limits.connections): closing idle ones for new ones",
		zap.Int("limit", t.Max), zap.Int("idle", t.idle.Len()), zap.Int("without_request", t.silent.Len()))
}

// logBelowLimit logs, once there is room again, how many were closed and refused. The caller holds mu.
func (t *table) logBelowLimit() {
	if !t.atLimit || len(t.conns) > t.Max-t.Max/8 {
		return
	}
	t.Logger.Info("API connections are below their limit again",
		zap.Int("closed_for_others", t.closed), zap.Int("refused", t.refused))
	t.atLimit = false
	t.closed = 0
	t.refused = 0
}

// serve serves a request, or refuses it when its connection is of the reserve.
func (t *table) serve(inner http.Handler, w http.ResponseWriter, r *http.Request) {
	e, _ := r.Context().Value(entryKey{}).(*entry)
	if e == nil {
		inner.ServeHTTP(w, r)
		return
	}
	within, open := t.promote(e)
	if !open {
		panic(http.ErrAbortHandler) // closed in favour of another one just before: there is nobody to answer
	}
	if within {
		inner.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Connection", "close")
	switch class := t.Class(r); {
	case class == Short:
		inner.ServeHTTP(w, r)
	case class == Long && t.beginLong():
		defer t.endLong()
		inner.ServeHTTP(w, r)
	default:
		t.countRefused()
		t.Refuse.ServeHTTP(w, r)
	}
}

// promote moves a connection of the reserve within the limit when there is room. It reports whether the
// connection is within the limit, and whether it is still open.
func (t *table) promote(e *entry) (within, open bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conns[e.conn] != e {
		return false, false
	}
	if e.reserve && t.makeRoom(false) {
		e.reserve = false
		t.within++
	}
	return !e.reserve, true
}

// beginLong reports whether the reserve has room for a Long request. When it has, endLong must follow.
func (t *table) beginLong() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.long >= t.Reserve/2 {
		return false
	}
	t.long++
	return true
}

func (t *table) endLong() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.long--
}

func (t *table) countRefused() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused++
}
