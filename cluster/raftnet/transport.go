package raftnet

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

// Factory implements config.TransportFactory for one node.
type Factory struct {
	// Transport is what Create returned last, nil before.
	Transport *Transport
}

// Create implements config.TransportFactory.
func (f *Factory) Create(
	cfg config.NodeHostConfig, batch raftio.MessageHandler, chunk raftio.ChunkHandler,
) raftio.ITransport {
	t := &Transport{
		address: cfg.GetListenAddress(), handle: batch, chunk: chunk, open: map[net.Conn]bool{},
		lost: map[string]time.Time{}, heard: map[string]time.Time{}, fails: map[string]failure{},
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	f.Transport = t
	return t
}

// Validate implements config.TransportFactory. The library's own check does not know IPv6.
func (*Factory) Validate(address string) bool { return validAddress(address) }

// validAddress reports whether address is host:port with a port that can be listened on. The host may be
// empty.
func validAddress(address string) bool {
	_, port, err := net.SplitHostPort(address)
	n, bad := strconv.ParseUint(port, 10, 16)
	return err == nil && bad == nil && n > 0
}

// Transport implements raftio.ITransport. Its methods are safe to call from many goroutines.
type Transport struct {
	address string // to listen on
	handle  raftio.MessageHandler
	chunk   raftio.ChunkHandler

	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	listener net.Listener
	udp      net.PacketConn
	served   sync.WaitGroup

	mu    sync.Mutex
	open  map[net.Conn]bool    // accepted ones; nil once closed
	lost  map[string]time.Time // by target: when packets were last lost
	heard map[string]time.Time // by sender: when it last sent messages
	fails map[string]failure   // by target: to which no connection can be made
}

// failure is why no connection to a node can be made, since when, and when that was last tried.
type failure struct {
	since, last time.Time
	err         error
}

// recordDial keeps whether a connection to a node was made.
func (t *Transport) recordDial(target string, err error) {
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
	t.fails[target] = failure{f.since, now, err}
}

// Unreachable returns why a node's Raft port, host:port, has not been reached for so long; nil when it was,
// or when there was no need to. The node itself may reach this one.
func (t *Transport) Unreachable(address string, d time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.fails[address]; f.err != nil && time.Since(f.since) > d && time.Since(f.last) < d {
		return f.err
	}
	return nil
}

// receive takes messages.
func (t *Transport) receive(m raftpb.MessageBatch) {
	t.mu.Lock()
	t.heard[m.SourceAddress] = time.Now()
	t.mu.Unlock()
	t.handle(m)
}

// HeardWithin reports whether messages of the node with this address, host:port, came within the last d.
func (t *Transport) HeardWithin(address string, d time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Since(t.heard[address]) < d
}

// lossy reports whether packets to a node were lost now or lately, on any link.
func (t *Transport) lossy(target string, now bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now {
		t.lost[target] = time.Now()
	}
	return now || time.Since(t.lost[target]) < lossyFor
}

// Name implements raftio.ITransport.
func (t *Transport) Name() string { return "imgcluster" }

// Start implements raftio.ITransport.
func (t *Transport) Start() (err error) {
	if t.listener, err = halfopen.Listen(t.ctx, t.address); err != nil {
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
			case err == nil && t.track(conn):
				t.served.Go(func() { t.serve(conn) })
			case err == nil:
				conn.Close()
			case t.ctx.Err() != nil:
				return
			default: // such as too many open files
				wait.For(t.ctx, 100*time.Millisecond)
			}
		}
	})
	return nil
}

// track takes a connection that Close has to end, and reports whether it may be used.
func (t *Transport) track(conn net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open != nil {
		t.open[conn] = true
	}
	return t.open != nil
}

// Close implements raftio.ITransport. Dragonboat has closed its connections before.
func (t *Transport) Close() (err error) {
	t.cancel()
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
func (t *Transport) serve(conn net.Conn) {
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
			t.receive(m)
		case frameSnapshot:
			var c raftpb.Chunk
			if c.Unmarshal(buf.Bytes()) != nil || !t.chunk(c) {
				return
			}
		}
	}
}

// serveDatagrams takes what comes as datagrams.
func (t *Transport) serveDatagrams() {
	var packet [2 * datagramBytesMax]byte
	var buf bytes.Buffer
	for t.ctx.Err() == nil {
		n, _, err := t.udp.ReadFrom(packet[:])
		if err != nil {
			wait.For(t.ctx, 100*time.Millisecond)
			continue
		}
		if kind, err := readFrame(bytes.NewReader(packet[:n]), &buf); err != nil || kind != frameBatch {
			continue
		}
		var m raftpb.MessageBatch
		if m.Unmarshal(buf.Bytes()) == nil {
			t.receive(m)
		}
	}
}

// GetConnection implements raftio.ITransport.
func (t *Transport) GetConnection(ctx context.Context, target string) (raftio.IConnection, error) {
	l, err := t.newLink(ctx, target)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// GetSnapshotConnection implements raftio.ITransport.
func (t *Transport) GetSnapshotConnection(
	ctx context.Context, target string,
) (raftio.ISnapshotConnection, error) {
	conn, err := dialRaft(ctx, target)
	if err != nil {
		return nil, err
	}
	return &snapshotLink{conn: conn}, nil
}
