package raftnet

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/lni/dragonboat/v4/raftpb"

	"imgcluster/cluster/halfopen"
)

const (
	linkDial     = 5 * time.Second       // to connect
	linkPatience = 50 * time.Millisecond // what is sent waits so long for a connection that is being made

	// linkUnanswered is short, since Raft sends a lost message again, on a connection that works.
	linkUnanswered = 5 * time.Second
	linkSlowest    = 100 << 10 // bytes/s; a slower connection is given up
	linkSilence    = time.Second
	linkIdle       = 2 * time.Minute // without a message; dragonboat ends one after a minute
)

// Where packets are lost, a message that TCP has to send again holds up all that come after it: a
// few losses in a row outlast an election's timeout, and no leader lasts. So what is sent to a node at
// such a time goes as a datagram too, to the same port: one lost heartbeat does not matter when the
// next one does not wait for it. Raft takes messages twice and in any order, and a command that is
// applied twice does nothing more (see Propose).
//
// Measured where 30 % of all packets are lost (TestNetworkLoss/All, 30 uploads): 17 to 23 s with datagrams;
// more than 60 s, where the test gives up, without; 26 to 50 s when the node's other connections were used
// in their place.
const (
	lossyFor         = time.Second // after a loss, messages go both ways
	datagramBytesMax = 1400        // with what a packet of 1500 bytes has before it
)

// link carries messages to another node, for one goroutine. When its connection breaks it makes
// another, and what is sent meanwhile goes as datagrams, if at all. It fails only when nothing is
// heard of the node either: dragonboat then sends it nothing for a while, on no link.
type link struct {
	transport *Transport
	target    string
	to        *net.UDPAddr
	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
	dialing   chan dialed // while the connection is being made
	conn      *tls.Conn
	sealer    *sealer // of the last connection
	frames    frames
	sealed    []byte // a datagram
}

// dialed is what came of making a connection.
type dialed struct {
	conn *tls.Conn
	err  error
}

// greeting is what the end that accepts a connection sends, and all that it sends: only then it has accepted
// the other's certificate, and Raft runs there.
const greeting = 'R'

func greet(conn net.Conn) error {
	if err := conn.SetWriteDeadline(time.Now().Add(linkUnanswered)); err != nil {
		return err
	}
	_, err := conn.Write([]byte{greeting})
	return err
}

// dial connects to the node at target.
func (t *Transport) dial(ctx context.Context, target string) (*tls.Conn, error) {
	node := t.nodeAt(target)
	if node == 0 {
		return nil, fmt.Errorf("no member has the address %s", target)
	}
	conn, err := t.dialer.Dial(ctx, node, target)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.NetConn().Close() })
	defer stop()
	if err := awaitGreeting(conn); err != nil {
		conn.NetConn().Close()
		return nil, fmt.Errorf("node %d at %s: %w", node, target, err)
	}
	return conn, nil
}

func awaitGreeting(conn net.Conn) error {
	if err := conn.SetReadDeadline(time.Now().Add(linkDial)); err != nil {
		return err
	}
	var b [1]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		return fmt.Errorf("no greeting of Raft: %w", err)
	}
	if b[0] != greeting {
		return errFrame
	}
	return nil
}

func (t *Transport) newLink(ctx context.Context, target string) (*link, error) {
	to, err := net.ResolveUDPAddr("udp", target)
	if err != nil {
		return nil, err
	}
	l := &link{transport: t, target: target, to: to}
	l.ctx, l.cancel = context.WithCancel(ctx)
	if err := l.connect(); err != nil {
		l.cancel()
		return nil, err
	}
	return l, nil
}

// connect sees to it that there is a connection, or that one is being made.
func (l *link) connect() error {
	if l.conn != nil {
		return nil
	}
	if l.dialing == nil {
		dialing := make(chan dialed, 1)
		l.dialing = dialing
		go func() {
			conn, err := l.transport.dial(l.ctx, l.target)
			dialing <- dialed{conn, err}
		}()
		select {
		case d := <-dialing:
			dialing <- d
		case <-time.After(linkPatience):
		}
	}
	select {
	case d := <-l.dialing:
		l.dialing = nil
		l.transport.recordDial(l.target, d.err)
		if d.err != nil {
			return l.failed(d.err)
		}
		return l.connected(d.conn)
	default:
		return nil
	}
}

// connected takes a connection. From here on datagrams to the node are sealed under a key of it.
func (l *link) connected(conn *tls.Conn) error {
	s, err := newSealer(conn.ConnectionState())
	if err != nil {
		conn.NetConn().Close()
		return err
	}
	l.conn, l.sealer = conn, s
	l.transport.mu.Lock()
	defer l.transport.mu.Unlock()
	l.transport.sealers[l.target] = s
	return nil
}

// failed returns err unless the node sends messages.
func (l *link) failed(err error) error {
	if l.transport.HeardWithin(l.target, linkSilence) {
		return nil
	}
	return err
}

// SendMessageBatch implements raftio.IConnection.
func (l *link) SendMessageBatch(m raftpb.MessageBatch) error {
	if err := l.connect(); err != nil {
		return err
	}
	if l.conn == nil || l.transport.lossy(l.target, halfopen.Lossy(l.conn.NetConn().(syscall.Conn))) {
		if err := l.sendDatagrams(m); err != nil {
			return err
		}
	}
	if l.conn == nil {
		return nil
	}
	frame, err := l.frames.make(frameBatch, m.SizeUpperLimit(), m.MarshalTo)
	if err != nil {
		return err
	}
	if err := sendFrame(l.conn, frame); err != nil {
		l.conn.NetConn().Close()
		l.conn = nil
		return l.failed(err)
	}
	return nil
}

// sendDatagrams sends the messages that fit into datagrams. Whether they arrive is not known. Before there
// has been a connection to the node there is no key, and nothing is sent.
func (l *link) sendDatagrams(m raftpb.MessageBatch) error {
	s := l.sealer
	if s == nil { // that of another link's connection
		l.transport.mu.Lock()
		s = l.transport.sealers[l.target]
		l.transport.mu.Unlock()
	}
	if s == nil {
		return nil
	}
	all := m.Requests
	m.Requests = nil
	empty := datagramAddends + m.SizeUpperLimit()
	for len(all) > 0 {
		size, n := empty, 0
		for ; n < len(all) && size+all[n].SizeUpperLimit() <= datagramBytesMax; n++ {
			size += all[n].SizeUpperLimit()
		}
		if n == 0 { // too large
			all = all[1:]
			continue
		}
		m.Requests, all = all[:n], all[n:]
		frame, err := l.frames.make(frameBatch, m.SizeUpperLimit(), m.MarshalTo)
		if err != nil {
			return err
		}
		l.sealed = s.seal(l.sealed[:0], frame[frameHeader:])
		l.transport.udp.WriteTo(l.sealed, l.to) // it may be lost anyway
	}
	return nil
}

// Close implements raftio.IConnection. What was sent still arrives.
func (l *link) Close() {
	l.cancel()
	if l.dialing != nil {
		l.conn = (<-l.dialing).conn
	}
	if l.conn != nil {
		l.conn.NetConn().Close() // TLS would wait for a node that takes nothing
	}
}

// snapshotLink carries a snapshot.
type snapshotLink struct {
	conn   *tls.Conn
	frames frames
}

// SendChunk implements raftio.ISnapshotConnection.
func (l *snapshotLink) SendChunk(c raftpb.Chunk) error {
	frame, err := l.frames.make(frameSnapshot, c.Size(), c.MarshalTo)
	if err != nil {
		return err
	}
	return sendFrame(l.conn, frame)
}

// Close implements raftio.ISnapshotConnection. What was sent still arrives.
func (l *snapshotLink) Close() { l.conn.NetConn().Close() }

// frameTime returns how long a frame of so many bytes may take.
func frameTime(bytes int) time.Duration {
	return linkUnanswered + time.Duration(bytes)*time.Second/linkSlowest
}

func sendFrame(conn net.Conn, frame []byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(frameTime(len(frame)))); err != nil {
		return err
	}
	_, err := conn.Write(frame)
	return err
}
