package consensus

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"

	"imgcluster/cluster/halfopen"
	"imgcluster/cluster/wait"
)

// Raft's messages go over connections of our own. Those of the library wait as long again as a fault
// of the network lasted before they notice that it is over (TCP's retransmission backs off), and the
// node that came back takes no part until then.

// transportFactory implements config.TransportFactory for one node.
type transportFactory struct{ made *transport }

// Create implements config.TransportFactory.
func (f *transportFactory) Create(cfg config.NodeHostConfig, batch raftio.MessageHandler, chunk raftio.ChunkHandler) raftio.ITransport {
	t := &transport{
		address: cfg.GetListenAddress(), handle: batch, chunk: chunk, open: map[net.Conn]bool{},
		lost: map[string]time.Time{}, heard: map[string]time.Time{}, fails: map[string]failing{},
	}
	t.life, t.end = context.WithCancel(context.Background())
	f.made = t
	return t
}

// Validate implements config.TransportFactory. The library's own check knows no IPv6.
func (*transportFactory) Validate(address string) bool { return validAddress(address) }

func validAddress(address string) bool {
	_, port, err := net.SplitHostPort(address)
	n, bad := strconv.ParseUint(port, 10, 16)
	return err == nil && bad == nil && n > 0
}

// transport implements raftio.ITransport.
type transport struct {
	address string // to listen on
	handle  raftio.MessageHandler
	chunk   raftio.ChunkHandler

	life     context.Context
	end      context.CancelFunc
	listener net.Listener
	udp      net.PacketConn
	served   sync.WaitGroup

	mu    sync.Mutex
	open  map[net.Conn]bool    // accepted ones; nil once closed
	lost  map[string]time.Time // by target: when packets were last lost
	heard map[string]time.Time // by sender: when it last sent messages
	fails map[string]failing   // by target: to which no connection can be made
}

// failing says since when no connection to a node can be made, when that was last tried, and why.
type failing struct {
	since, last time.Time
	err         error
}

// dialed notes whether a connection to a node was made.
func (t *transport) dialed(target string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		delete(t.fails, target)
		return
	}
	now := time.Now()
	f, known := t.fails[target]
	if !known {
		f.since = now
	}
	t.fails[target] = failing{f.since, now, err}
}

// Unreachable returns why a node's Raft port, host:port, has not been reached for so long; nil when it was, or when
// there was no need to. The node itself may reach this one.
func (c *Consensus) Unreachable(address string, d time.Duration) error {
	c.transport.mu.Lock()
	defer c.transport.mu.Unlock()
	if f := c.transport.fails[address]; f.err != nil && time.Since(f.since) > d && time.Since(f.last) < d {
		return f.err
	}
	return nil
}

// batch takes messages.
func (t *transport) batch(m raftpb.MessageBatch) {
	t.mu.Lock()
	t.heard[m.SourceAddress] = time.Now()
	t.mu.Unlock()
	t.handle(m)
}

// heardWithin tells whether messages of a node came this lately.
func (t *transport) heardWithin(address string, d time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Since(t.heard[address]) < d
}

// lossy tells whether packets to a node were lost now or lately, on any link.
func (t *transport) lossy(target string, now bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now {
		t.lost[target] = time.Now()
	}
	return now || time.Since(t.lost[target]) < lossyFor
}

// Name implements raftio.ITransport.
func (t *transport) Name() string { return "imgcluster" }

// Start implements raftio.ITransport.
func (t *transport) Start() (err error) {
	if t.listener, err = halfopen.Listen(t.life, t.address); err != nil {
		return err
	}
	if t.udp, err = net.ListenPacket("udp", t.address); err != nil {
		return err // Close follows
	}
	t.served.Go(t.serveDatagrams)
	t.served.Go(func() {
		for {
			conn, err := t.listener.Accept()
			switch {
			case err == nil && t.keep(conn):
				t.served.Go(func() { t.serve(conn) })
			case err == nil:
				conn.Close()
			case t.life.Err() != nil:
				return
			default: // such as too many open files
				wait.For(t.life, 100*time.Millisecond)
			}
		}
	})
	return nil
}

// keep notes a connection that Close has to end.
func (t *transport) keep(conn net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open != nil {
		t.open[conn] = true
	}
	return t.open != nil
}

// Close implements raftio.ITransport. Dragonboat has closed its connections before.
func (t *transport) Close() (err error) {
	t.end()
	if t.listener != nil {
		err = t.listener.Close()
	}
	if t.udp != nil {
		err = errors.Join(err, t.udp.Close())
	}
	t.mu.Lock()
	for conn := range t.open {
		conn.Close()
	}
	t.open = nil
	t.mu.Unlock()
	t.served.Wait()
	return err
}

// serve takes what comes on a connection. One on which something wrong comes is closed, and its sender
// makes another.
func (t *transport) serve(conn net.Conn) {
	defer func() {
		conn.Close()
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.open, conn)
	}()
	var buf bytes.Buffer
	for {
		kind, err := readFrame(conn, &buf)
		if err != nil {
			return
		}
		switch kind {
		case frameBatch:
			var m raftpb.MessageBatch
			if m.Unmarshal(buf.Bytes()) != nil {
				return
			}
			t.batch(m)
		case frameSnapshot:
			var c raftpb.Chunk
			if c.Unmarshal(buf.Bytes()) != nil || !t.chunk(c) {
				return
			}
		}
	}
}

// serveDatagrams takes what comes as datagrams.
func (t *transport) serveDatagrams() {
	var packet [2 * datagramBytesMax]byte
	var buf bytes.Buffer
	for t.life.Err() == nil {
		n, _, err := t.udp.ReadFrom(packet[:])
		if err != nil {
			wait.For(t.life, 100*time.Millisecond)
			continue
		}
		if kind, err := readFrame(bytes.NewReader(packet[:n]), &buf); err != nil || kind != frameBatch {
			continue
		}
		var m raftpb.MessageBatch
		if m.Unmarshal(buf.Bytes()) == nil {
			t.batch(m)
		}
	}
}

// GetConnection implements raftio.ITransport.
func (t *transport) GetConnection(ctx context.Context, target string) (raftio.IConnection, error) {
	l, err := t.newLink(ctx, target)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// GetSnapshotConnection implements raftio.ITransport.
func (t *transport) GetSnapshotConnection(ctx context.Context, target string) (raftio.ISnapshotConnection, error) {
	conn, err := dialRaft(ctx, target)
	if err != nil {
		return nil, err
	}
	return &snapshotLink{conn: conn}, nil
}
