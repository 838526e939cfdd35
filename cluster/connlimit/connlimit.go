// Package connlimit bounds the open connections of an HTTP server, so that whoever opens many and does nothing with
// them takes no place from others. At the limit the connection that has been idle for longest is closed for
// the new one. Where all are busy, a reserve above the limit still answers what must always have an answer.
package connlimit

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Class says what becomes of a request while all connections within the limit are busy.
type Class int

// The classes. Of the reserve, requests that are Long, such as a stream, may take half.
const (
	Refused Class = iota
	Short
	Long
)

// Options says how a Server is limited. All fields are needed.
type Options struct {
	Max, Reserve int
	Class        func(*http.Request) Class
	Refuse       http.Handler // answers what is Refused
	Logger       *zap.Logger
}

// headerAge is what a new connection has to send the header of its first request before it counts as idle.
// Where all are as new it is headerAgeMin: whoever opens connections faster than headerAge lets them go would
// keep all others out.
const (
	headerAge    = time.Second
	headerAgeMin = 100 * time.Millisecond
)

// refusal is for what cannot even be read: the reserve is taken too.
const refusal = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"

// table holds the open connections.
type table struct {
	Options
	mu       sync.Mutex
	conns    map[net.Conn]*entry
	within   int       // connections within Max; the others are of the reserve
	long     int       // of the reserve, those with a Long request
	fresh    list.List // of *entry: have not sent a header yet, oldest first
	idle     list.List // of *entry: between two requests, longest first
	over     bool      // it was logged that the limit is reached
	closed   int       // since then, for others
	answered int       // since then, requests refused
}

// entry is one connection.
type entry struct {
	conn    net.Conn
	reserve bool
	since   time.Time // it is in a list
	at      *list.Element
	in      *list.List
}

type entryKey struct{}

// Serve is server.Serve on l with its connections limited. It sets the server's hooks and wraps its handler.
func Serve(server *http.Server, l net.Listener, o Options) error {
	return newTable(o).run(server, l)
}

func newTable(o Options) *table { return &table{Options: o, conns: map[net.Conn]*entry{}} }

func (t *table) run(server *http.Server, l net.Listener) error {
	server.ConnState = t.changed
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		t.mu.Lock()
		defer t.mu.Unlock()
		return context.WithValue(ctx, entryKey{}, t.conns[c])
	}
	inner := server.Handler
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.serve(inner, w, r) })
	return server.Serve(&listener{l, t})
}

type listener struct {
	net.Listener
	t *table
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || l.t.admit(c) {
			return c, err
		}
		c.SetWriteDeadline(time.Now().Add(headerAge))
		c.Write([]byte(refusal)) // who does not read it is refused all the same
		c.Close()
	}
}

// admit gives a new connection a place, and reports whether there is one.
func (t *table) admit(c net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := &entry{conn: c}
	switch {
	case t.room(false):
		t.within++
	case t.room(true):
		e.reserve = true
	default:
		t.answered++
		return false
	}
	t.conns[c] = e
	e.put(&t.fresh)
	return true
}

// room reports whether there is a place within the limit, or in the reserve, and makes one if it can. Held: mu.
func (t *table) room(reserve bool) bool {
	taken, most := t.within, t.Max
	if reserve {
		taken, most = len(t.conns)-t.within, t.Reserve
	}
	if taken < most {
		return true
	}
	t.reached()
	return t.endOldest(&t.fresh, reserve, headerAge) ||
		t.endOldest(&t.idle, reserve, 0) || // of the reserve after "OPTIONS *", which no handler sees
		t.endOldest(&t.fresh, reserve, headerAgeMin)
}

// endOldest closes the connection that has been in a list for longest, if that is as long as age. Held: mu.
func (t *table) endOldest(l *list.List, reserve bool, age time.Duration) bool {
	for at := l.Front(); at != nil; at = at.Next() {
		e := at.Value.(*entry)
		if time.Since(e.since) < age {
			break
		}
		if e.reserve == reserve {
			t.end(e)
			return true
		}
	}
	return false
}

// end closes a connection for another one. Held: mu.
func (t *table) end(e *entry) {
	t.closed++
	t.forget(e)
	e.conn.Close() // its reader finds out
}

// forget takes a connection out of the table. Held: mu.
func (t *table) forget(e *entry) {
	e.put(nil)
	delete(t.conns, e.conn)
	if !e.reserve {
		t.within--
	}
}

// put moves the entry to the end of a list, or with nil to none. Held: the table's mu.
func (e *entry) put(l *list.List) {
	if e.in != nil {
		e.in.Remove(e.at)
	}
	if e.in = l; l != nil {
		e.since = time.Now()
		e.at = l.PushBack(e)
	}
}

// changed is the server's ConnState.
func (t *table) changed(c net.Conn, state http.ConnState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.conns[c]
	if e == nil { // closed for another one
		return
	}
	switch state {
	case http.StateActive: // the header of a request is there
		e.put(nil)
	case http.StateIdle:
		e.put(&t.idle)
	case http.StateClosed, http.StateHijacked:
		t.forget(e)
		t.relaxed()
	}
}

// reached logs, once, that connections have to be closed or refused for others. Held: mu.
func (t *table) reached() {
	if !t.over {
		t.over = true
		t.Logger.Warn("connections to the API are at their limit (limits.connections): idle ones are closed for new ones",
			zap.Int("limit", t.Max), zap.Int("idle", t.idle.Len()), zap.Int("without_request", t.fresh.Len()))
	}
}

// relaxed logs what became of it once there is room again. Held: mu.
func (t *table) relaxed() {
	if t.over && len(t.conns) <= t.Max-t.Max/8 {
		t.Logger.Info("connections to the API are below their limit again",
			zap.Int("closed_for_others", t.closed), zap.Int("refused", t.answered))
		t.over, t.closed, t.answered = false, 0, 0
	}
}

// serve answers a request, or refuses it where its connection is one of the reserve.
func (t *table) serve(inner http.Handler, w http.ResponseWriter, r *http.Request) {
	e, _ := r.Context().Value(entryKey{}).(*entry)
	if e == nil {
		inner.ServeHTTP(w, r)
		return
	}
	within, open := t.promote(e)
	if !open {
		panic(http.ErrAbortHandler) // closed for another one just before: there is nobody to answer
	}
	if within {
		inner.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Connection", "close")
	class := t.Class(r)
	if class == Long && !t.takeLong() {
		class = Refused
	}
	if class == Refused {
		t.mu.Lock()
		t.answered++
		t.mu.Unlock()
		t.Refuse.ServeHTTP(w, r)
		return
	}
	if class == Long {
		defer func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.long--
		}()
	}
	inner.ServeHTTP(w, r)
}

// promote reports whether a connection has a place within the limit, and gives it one that has become free; and
// whether it is open still.
func (t *table) promote(e *entry) (within, open bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conns[e.conn] != e {
		return false, false
	}
	if e.reserve && t.room(false) {
		e.reserve = false
		t.within++
	}
	return !e.reserve, true
}

func (t *table) takeLong() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.long >= t.Reserve/2 {
		return false
	}
	t.long++
	return true
}
