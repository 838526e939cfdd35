package raftnet

import (
	"context"
	"net"
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
)

// Where packets are lost, a message that TCP has to send again holds up all that come after it: a
// few losses in a row outlast an election's timeout, and no leader lasts. So what is sent to a node at
// such a time goes as a datagram too, to the same port: one lost heartbeat does not matter when the
// next one does not wait for it. Raft takes messages twice and in any order, and a command that is
// applied twice does nothing more (see Propose).
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
	conn      *net.TCPConn
	frames    frames
}

// dialed is what came of making a connection.
type dialed struct {
	conn *net.TCPConn
	err  error
}

func dialRaft(ctx context.Context, target string) (*net.TCPConn, error) {
	conn, err := halfopen.Dialer(linkDial, linkUnanswered).DialContext(ctx, "tcp", target)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
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
			conn, err := dialRaft(l.ctx, l.target)
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
		l.conn = d.conn
		l.transport.recordDial(l.target, d.err)
		return l.failed(d.err)
	default:
		return nil
	}
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
	if l.conn == nil || l.transport.lossy(l.target, halfopen.Lossy(l.conn)) {
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
		l.conn.Close()
		l.conn = nil
		return l.failed(err)
	}
	return nil
}

// sendDatagrams sends the messages that fit into datagrams. Whether they arrive is not known.
func (l *link) sendDatagrams(m raftpb.MessageBatch) error {
	all := m.Requests
	m.Requests = nil
	empty := frameHeader + m.SizeUpperLimit()
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
		l.transport.udp.WriteTo(frame, l.to) // it may be lost anyway
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
		l.conn.Close()
	}
}

// snapshotLink carries a snapshot.
type snapshotLink struct {
	conn   *net.TCPConn
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
func (l *snapshotLink) Close() { l.conn.Close() }

func sendFrame(conn net.Conn, frame []byte) error {
	limit := linkUnanswered + time.Duration(len(frame))*time.Second/linkSlowest
	if err := conn.SetWriteDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	_, err := conn.Write(frame)
	return err
}
