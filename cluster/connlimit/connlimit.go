// Package connlimit limits the open connections of an HTTP server, in all and of one address, so that a
// client that opens many and leaves them idle, or sends slowly, does not lock others out. At a limit the
// connection that has been idle longest, of all or of the address, is closed in favour of the new one, or one
// whose request is too slow gives way. When all are busy, a reserve above the limit still serves the requests
// that must always be answered. It is between the API's listener and its handler.
package connlimit

import (
	"cmp"
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/bulkio"
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
	Max               int // connections
	PerAddress        int // connections of one address; see Address
	Reserve           int // connections above these
	ReservePerAddress int // of the reserve
	Class             func(*http.Request) Class
	Refuse            http.Handler // answers Refused requests
	Logger            *zap.Logger
	TLS               *tls.Config // for the connections; nil: plain HTTP
}

// Mover is a request, or what there is of it, on its way. It is safe for concurrent use.
type Mover interface {
	// Late returns by how much it is behind what it must move at while others wait; not above zero when it is
	// not.
	Late(now time.Time) time.Duration
	// GiveWay makes it end with an error. It does not block.
	GiveWay()
}

// headerAge is how long a new connection may take to send the header of its first request before it counts as
// idle. When all are newer, headerAgeMin counts instead: otherwise a client that opens connections fast
// enough would keep all others out.
const (
	headerAge    = time.Second
	headerAgeMin = 100 * time.Millisecond
)

// idleAge is how long a connection keeps its place between two requests, while others that have not sent one
// can be closed.
const idleAge = 10 * time.Second

// searchEvery is the pause after a search for a request that is too slow has found none.
const searchEvery = 10 * time.Millisecond

// refusal is the answer when the reserve is used up too, before a request is read. Under TLS there is none,
// for that would need a handshake, which is work.
const refusal = "HTTP/1.1 503 Service Unavailable\r\n" +
	"Connection: close\r\n" +
	"Retry-After: 1\r\n" +
	"Content-Length: 0\r\n\r\n"

// table holds the open connections.
type table struct {
	Options
	mu    sync.Mutex
	conns map[net.Conn]*entry
	group                         // all connections
	of    map[netip.Prefix]*group // the connections of each address
	long  int                     // number of the reserve with a Long request
	// full is whose limit is reached, of all or of an address: from the log line that says so to the one that
	// there is room again.
	full    *group
	closed  int // connections closed for others, while full
	refused int // requests and connections refused, while full
}

// group is connections that a limit counts together.
type group struct {
	open, within int          // within the limit; the others are of the reserve
	lists        [2]list.List // of *entry: silent and idle
	searched     time.Time    // when no request was found that is too slow
}

// state is what an open connection does.
type state int

const (
	silent state = iota // has sent no header yet, or its request has not begun; see Waits
	idle                // is between two requests
	busy
)

// entry is one connection.
type entry struct {
	table   *table
	conn    net.Conn     // as the server has it
	raw     *bulkio.Conn // without TLS
	address netip.Prefix
	reserve bool
	state   state
	since   time.Time        // when it came into its state
	places  [2]*list.Element // in the lists of all and of its address, oldest first
	mover   Mover            // of the request in progress, nil where it does not give way
}

type entryKey struct{}

// Server is an HTTP server with limited connections.
type Server struct {
	*table
	http *http.Server
}

func newTable(o Options) *table {
	return &table{Options: o, conns: map[net.Conn]*entry{}, of: map[netip.Prefix]*group{}}
}

// Address returns what counts as one address: an IPv4 address, or an IPv6 network of 64 bits, which one host
// may have all of. What is no such address is the zero Prefix.
func Address(remote string) netip.Prefix {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	addr := at.Addr().Unmap().WithZone("")
	p, _ := addr.Prefix(min(addr.BitLen(), 64))
	return p
}

// New limits the connections of a server that does not serve yet. It sets the server's ConnState and
// ConnContext and wraps its handler.
func New(server *http.Server, o Options) *Server {
	t := newTable(o)
	server.ConnState = t.changed
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		t.mu.Lock()
		defer t.mu.Unlock()
		return context.WithValue(bulkio.With(ctx, c), entryKey{}, t.conns[c])
	}
	inner := server.Handler
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.serve(inner, w, r) })
	return &Server{t, server}
}

// Serve is that of http.Server.
func (s *Server) Serve(l net.Listener) error { return s.http.Serve(&listener{l, s.table}) }

// Shutdown lets the requests in progress end, and at the end of ctx closes their connections. Neither waits
// for a client that reads nothing.
func (s *Server) Shutdown(ctx context.Context) error {
	s.closeIn(idle)
	if s.http.Shutdown(ctx) == nil {
		return nil
	}
	s.closeIn(silent, idle, busy)
	return s.http.Close()
}

// closeIn closes the connections in some states. The server notices, and removes them.
func (t *table) closeIn(states ...state) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.conns {
		if slices.Contains(states, e.state) {
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
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		raw := bulkio.NewConn(accepted)
		c := net.Conn(raw)
		if l.t.TLS != nil {
			raw = bulkio.NewSecureConn(accepted)
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
func (t *table) admit(c net.Conn, raw *bulkio.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := &entry{table: t, conn: c, raw: raw, address: Address(raw.RemoteAddr().String()), state: busy}
	switch {
	case t.makeRoom(e.address, false):
	case t.makeRoom(e.address, true):
		e.reserve = true
	default:
		t.refused++
		return false
	}
	own := t.of[e.address]
	if own == nil {
		own = &group{}
		t.of[e.address] = own
	}
	for _, g := range []*group{&t.group, own} {
		g.add(e, 1)
	}
	t.conns[c] = e
	t.move(e, silent)
	return true
}

// add counts a connection in (n +1) or out (-1).
func (g *group) add(e *entry, n int) {
	g.open += n
	if !e.reserve {
		g.within += n
	}
}

// count returns the connections within the limit, or in the reserve.
func (g *group) count(reserve bool) int {
	if reserve {
		return g.open - g.within
	}
	return g.within
}

// makeRoom reports whether there is room for a connection of an address within the limits, or in the reserve,
// after closing a connection if necessary: of the address itself where it is that which has too many. The
// caller holds mu.
func (t *table) makeRoom(of netip.Prefix, reserve bool) bool {
	limit, perAddress := t.Max, t.PerAddress
	if reserve {
		limit, perAddress = t.Reserve, t.ReservePerAddress
	}
	if own := t.of[of]; own != nil && own.count(reserve) >= perAddress {
		t.logAtLimit("of one address (limits.connections_per_address)", perAddress, own)
		return t.closeOne(own, reserve)
	}
	if t.count(reserve) < limit {
		return true
	}
	t.logAtLimit("(limits.connections)", limit, &t.group)
	return t.closeOne(&t.group, reserve)
}

// closeOne closes a connection of a group that has nothing to do, or has its request give way, and reports
// whether there was one. The caller holds mu.
func (t *table) closeOne(g *group, reserve bool) bool {
	return t.closeOldest(&g.lists[silent], reserve, headerAge) ||
		t.closeOldest(&g.lists[idle], reserve, idleAge) ||
		t.endSlowest(g, reserve) ||
		t.closeOldest(&g.lists[silent], reserve, headerAgeMin) ||
		t.closeOldest(&g.lists[idle], reserve, 0) // in the reserve after "OPTIONS *", which no handler sees
}

// endSlowest has a request of a group give way that is too slow, of the address with most connections the one
// that is latest, and reports whether there was one. The caller holds mu.
func (t *table) endSlowest(g *group, reserve bool) bool {
	now := time.Now()
	if now.Sub(g.searched) < searchEvery {
		return false
	}
	var slowest *entry
	var most time.Duration
	for _, e := range t.conns {
		own := t.of[e.address]
		if e.mover == nil || e.reserve != reserve || g != &t.group && g != own {
			continue
		}
		late := e.mover.Late(now)
		if late > 0 && (slowest == nil ||
			cmp.Or(cmp.Compare(own.open, t.of[slowest.address].open), cmp.Compare(late, most)) > 0) {
			slowest, most = e, late
		}
	}
	if slowest == nil {
		g.searched = now
		return false
	}
	t.closeFor(slowest)
	return true
}

// Moves says what the request on a connection moves from now on. It does nothing for a context that is not of
// a Server's request.
func Moves(ctx context.Context, m Mover) { progress(ctx, busy, m) }

// Waits says that the request on a connection holds nothing yet, because it waits for its first bytes or for
// others to end: until over is called the connection makes way as one that has sent no header does.
func Waits(ctx context.Context, m Mover) (over func()) {
	before := progress(ctx, silent, m)
	return func() { progress(ctx, busy, before) }
}

// progress returns the mover of before.
func progress(ctx context.Context, to state, m Mover) (before Mover) {
	e, _ := ctx.Value(entryKey{}).(*entry)
	if e == nil {
		return nil
	}
	e.table.mu.Lock()
	defer e.table.mu.Unlock()
	before = e.mover
	if e.table.conns[e.conn] == e {
		e.table.move(e, to)
		e.mover = m
	}
	return before
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

// closeFor closes a connection in favour of another one. One with a request has it answered first. The caller
// holds mu.
func (t *table) closeFor(e *entry) {
	t.closed++
	m := e.mover
	t.remove(e)
	if m != nil {
		m.GiveWay()
		return
	}
	e.raw.Close() // its reader gets an error; to close TLS would wait for room to say so
}

// remove removes a connection from the table. The caller holds mu.
func (t *table) remove(e *entry) {
	t.move(e, busy)
	delete(t.conns, e.conn)
	own := t.of[e.address]
	for _, g := range []*group{&t.group, own} {
		g.add(e, -1)
	}
	if own.open == 0 {
		delete(t.of, e.address)
	}
}

// move notes that a connection has another state from now on. The caller holds mu.
func (t *table) move(e *entry, to state) {
	for i, g := range []*group{&t.group, t.of[e.address]} {
		if e.state != busy {
			g.lists[e.state].Remove(e.places[i])
		}
		if to != busy {
			e.places[i] = g.lists[to].PushBack(e)
		}
	}
	e.state = to
	e.since = time.Now()
	e.mover = nil
}

// changed is the server's ConnState hook.
func (t *table) changed(c net.Conn, now http.ConnState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.conns[c]
	if e == nil { // closed in favour of another one
		return
	}
	switch now {
	case http.StateActive: // the header of a request has come
		t.move(e, busy)
	case http.StateIdle:
		t.move(e, idle)
	case http.StateClosed, http.StateHijacked:
		t.remove(e)
		t.logBelowLimit()
	}
}

// logAtLimit logs once that connections are closed or refused from now on. The caller holds mu.
func (t *table) logAtLimit(of string, limit int, g *group) {
	if t.full != nil {
		return
	}
	t.full = g
	t.Logger.Warn("API connections reached their limit "+of+": closing idle ones for new ones",
		zap.Int("limit", limit), zap.Int("idle", g.lists[idle].Len()),
		zap.Int("without_request", g.lists[silent].Len()))
}

// logBelowLimit logs, once there is room again, how many were closed and refused. The caller holds mu.
func (t *table) logBelowLimit() {
	limit := t.PerAddress
	if t.full == &t.group {
		limit = t.Max
	}
	if t.full == nil || t.full.open > limit-limit/8 {
		return
	}
	t.Logger.Info("API connections are below their limit again",
		zap.Int("closed_for_others", t.closed), zap.Int("refused", t.refused))
	t.full = nil
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
	if e.reserve && t.makeRoom(e.address, false) {
		e.reserve = false
		t.within++
		t.of[e.address].within++
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
