// Package peerconn makes the connections between nodes: mutual TLS 1.3, on one port of each node for every
// protocol (see access.ProtocolRaft and ProtocolHTTP). Whoever has no certificate of a node of this cluster
// gets no further than the handshake, which is bounded in time, number and size.
package peerconn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/access"
	"imgcluster/cluster/bulkio"
	"imgcluster/cluster/connlimit"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wait"
)

const (
	// handshakeTimeout is how long a new connection may take to show its certificate.
	handshakeTimeout = 5 * time.Second
	// logEvery is the pause between two log lines about refused connections.
	logEvery = 10 * time.Second
	// clocksEvery is the pause between two log lines about the clock of the same node.
	clocksEvery = time.Hour
)

// Credentials are what this node shows to others, and knows them by. All fields are needed.
type Credentials struct {
	Authority *access.Authority
	Own       *access.Certificate // this node's
}

// Port takes the connections of other nodes, and hands each to the listener of its protocol once the other
// end has shown that it is a node. Its methods are safe for concurrent use.
type Port struct {
	tcp     net.Listener
	tls     *tls.Config
	logger  *zap.Logger
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu        sync.Mutex
	waiting   handshakes
	listeners map[string]*listener       // by protocol
	logged    time.Time                  // when a refused connection was logged
	refused   int                        // number since then
	clocks    map[image.NodeID]time.Time // when a node's clock was logged
}

// New returns a port on a listener of TCP connections, of which it takes none before Start.
func New(tcp net.Listener, c Credentials, logger *zap.Logger) *Port {
	config := c.Authority.PeerServer(c.Own)
	// Images are large: small records, with which TLS begins, would only cost time.
	config.DynamicRecordSizingDisabled = true
	p := &Port{
		tcp: tcp, tls: config, logger: logger,
		waiting: newHandshakes(), listeners: map[string]*listener{}, clocks: map[image.NodeID]time.Time{},
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Addr returns the address that the port listens on.
func (p *Port) Addr() net.Addr { return p.tcp.Addr() }

// Start has the port take connections until Close.
func (p *Port) Start() { p.running.Go(p.run) }

func (p *Port) run() {
	for {
		raw, err := p.tcp.Accept()
		switch {
		case err == nil:
			p.admit(raw)
		case p.ctx.Err() != nil:
			return
		default: // such as too many open files
			wait.For(p.ctx, 100*time.Millisecond)
		}
	}
}

// Close closes the port, its listeners, and the connections that none of them has accepted.
func (p *Port) Close() error {
	p.cancel()
	err := p.tcp.Close()
	p.mu.Lock()
	p.waiting.closeAll()
	p.mu.Unlock()
	p.running.Wait()
	return err
}

// admit begins a handshake, where there is room for one.
func (p *Port) admit(raw net.Conn) {
	h := &handshake{conn: raw, from: connlimit.Address(raw.RemoteAddr().String()), since: time.Now()}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil || !p.waiting.add(h) {
		raw.Close()
		p.logRefused(raw, errors.New("too many handshakes at once"))
		return
	}
	p.running.Go(func() {
		if err := p.shake(h); err != nil {
			raw.Close()
			p.mu.Lock()
			defer p.mu.Unlock()
			p.logRefused(raw, err)
		}
	})
}

// shake does a handshake and hands the connection on. When it fails the caller closes the connection.
func (p *Port) shake(h *handshake) error {
	ctx, cancel := context.WithTimeout(p.ctx, handshakeTimeout)
	defer cancel()
	counted := &countedConn{Conn: bulkio.NewSecureConn(bulkio.NewQuietConn(h.conn))}
	conn := tls.Server(counted, p.tls)
	err := conn.HandshakeContext(ctx)
	p.mu.Lock()
	p.waiting.remove(h)
	if err != nil {
		p.mu.Unlock()
		return err
	}
	state := conn.ConnectionState()
	node, ok := access.PeerOf(state)
	if !ok {
		p.mu.Unlock()
		return errors.New("the certificate is not a node's") // PeerServer lets none through
	}
	p.waiting.know(node, h.from)
	p.logClocks(node, access.Clocks(state))
	l := p.listeners[state.NegotiatedProtocol]
	p.mu.Unlock()
	if l == nil { // such as Raft's, before it runs
		h.conn.Close()
		return nil
	}
	if !l.count(node, counted) {
		return fmt.Errorf("node %d has %d connections open (%s), the limit", node, l.perPeer,
			state.NegotiatedProtocol)
	}
	select {
	case l.accepted <- conn:
	case <-l.done:
		counted.Close()
	case <-ctx.Done():
		counted.Close()
	}
	return nil
}

// logClocks logs that a node's clock differs too much from this host's, for clients to trust both. The caller
// holds mu.
func (p *Port) logClocks(node image.NodeID, err error) {
	if last, logged := p.clocks[node]; err == nil || logged && time.Since(last) < clocksEvery {
		return
	}
	p.logger.Warn("clocks differ: clients do not trust one of the nodes", zap.Uint32("peer", uint32(node)),
		zap.Error(err), zap.String("hint", image.HintOf(err)))
	p.clocks[node] = time.Now()
}

// logRefused logs a refused connection, unless one was logged just before, or the other end has left: so do
// nodes that stop, and scanners. The caller holds mu.
func (p *Port) logRefused(conn net.Conn, err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return
	}
	if p.refused++; time.Since(p.logged) < logEvery || p.ctx.Err() != nil {
		return
	}
	fields := []zap.Field{zap.Stringer("from", conn.RemoteAddr()), zap.Error(err), zap.Int("refused", p.refused)}
	if hint := hintOf(err); hint != "" {
		fields = append(fields, zap.String("hint", hint))
	}
	p.logger.Warn("connection to raft_port refused: only nodes of this cluster get through", fields...)
	p.logged = time.Now()
	p.refused = 0
}

// hintOf returns what to do about a refused connection.
func hintOf(err error) string {
	var alert *net.OpError
	switch {
	case image.HintOf(err) != "":
		return image.HintOf(err)
	case errors.As(err, new(tls.RecordHeaderError)):
		return "where it is a node, run the same version of imgcluster on all of them"
	case errors.As(err, &alert) && alert.Op == "remote error": // an alert of TLS: it refuses this node
		return "where it is a node, its log says why; compare cluster.name and the master keys"
	}
	return ""
}

// listener is a protocol's share of the port.
type listener struct {
	port     *Port
	perPeer  int
	accepted chan net.Conn
	done     chan struct{} // closed by Close
	close    sync.Once

	mu   sync.Mutex
	open map[*countedConn]image.NodeID // those handed on and not closed
}

// Listen returns the connections of a protocol, each a *tls.Conn whose other end is a node (see
// access.PeerOf), in place of a listener that there was before. Of one node there are at most perPeer.
func (p *Port) Listen(protocol string, perPeer int) net.Listener { return p.listen(protocol, perPeer) }

func (p *Port) listen(protocol string, perPeer int) *listener {
	l := &listener{
		port: p, perPeer: perPeer, accepted: make(chan net.Conn), done: make(chan struct{}),
		open: map[*countedConn]image.NodeID{},
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listeners[protocol] = l
	return l
}

// count counts a connection of a node until it is closed, and reports whether there were not too many.
func (l *listener) count(node image.NodeID, conn *countedConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, other := range l.open {
		if other == node {
			n++
		}
	}
	if n >= l.perPeer {
		return false
	}
	l.open[conn] = node
	conn.counted = l
	return true
}

// closeConnections closes the connections that were handed on.
func (l *listener) closeConnections() {
	l.mu.Lock()
	open := slices.Collect(maps.Keys(l.open))
	l.mu.Unlock()
	for _, conn := range open {
		conn.Close()
	}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accepted:
		return conn, nil
	case <-l.done:
	case <-l.port.ctx.Done():
	}
	return nil, net.ErrClosed
}

// Close implements net.Listener. The port stays open.
func (l *listener) Close() error {
	l.close.Do(func() {
		close(l.done)
		l.port.mu.Lock()
		defer l.port.mu.Unlock()
		for protocol, other := range l.port.listeners {
			if other == l {
				delete(l.port.listeners, protocol)
			}
		}
	})
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.port.Addr() }

// countedConn is a TCP connection beneath TLS that is counted until it is closed.
type countedConn struct {
	*bulkio.Conn
	counted *listener // nil: by nobody
}

// Close implements net.Conn.
func (c *countedConn) Close() error {
	if l := c.counted; l != nil {
		l.mu.Lock()
		delete(l.open, c)
		l.mu.Unlock()
	}
	return c.Conn.Close()
}
