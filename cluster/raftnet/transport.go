package raftnet

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
	"go.uber.org/zap"

	"imgcluster/cluster/access"
	"imgcluster/cluster/image"
	"imgcluster/cluster/peerconn"
)

// Options are what a transport works with. All fields are needed.
type Options struct {
	Port        *peerconn.Port // takes the other nodes' connections
	Credentials peerconn.Credentials
	Cluster     Cluster
	Logger      *zap.Logger
}

// Cluster is what a transport has to know of the cluster.
type Cluster interface {
	// Address returns the Raft address, host:port, of a node that this one knows, else an empty string.
	Address(node image.NodeID) string
	// Members returns those of all nodes that this one knows.
	Members() map[image.NodeID]string
	// ReplicaID returns the ID of this node's replica of a shard; ok is false where it has none.
	ReplicaID(shard uint64) (replica uint64, ok bool)
	// NodeOf returns the node whose replica has an ID, 0 when no replica has it.
	NodeOf(replica uint64) image.NodeID
}

// Factory implements config.TransportFactory for one node.
type Factory struct {
	Options
	// Transport is what Create returned last, nil before.
	Transport *Transport
}

// Create implements config.TransportFactory.
func (f *Factory) Create(
	cfg config.NodeHostConfig, batch raftio.MessageHandler, chunk raftio.ChunkHandler,
) raftio.ITransport {
	t := &Transport{
		Options: f.Options,
		address: cfg.GetListenAddress(), deployment: cfg.GetDeploymentID(), handle: batch, chunk: chunk,
		dialer: peerconn.Dialer{
			Credentials: f.Credentials, Protocol: access.ProtocolRaft,
			Timeout: linkDial, Unanswered: linkUnanswered,
		},
		open: map[net.Conn]bool{}, lost: map[string]time.Time{}, heard: map[string]time.Time{},
		fails: map[string]failure{}, strangers: map[image.NodeID]string{},
		sessions: newSessions(), sealers: map[string]*sealer{},
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

// connectionsPerPeer bounds the connections from one node. It has four for messages, one for each snapshot,
// and for a while those that broke.
const connectionsPerPeer = 96

// Transport implements raftio.ITransport. Its methods are safe to call from many goroutines.
type Transport struct {
	Options
	address    string // to listen on for datagrams
	deployment uint64
	handle     raftio.MessageHandler
	chunk      raftio.ChunkHandler
	dialer     peerconn.Dialer

	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	listener net.Listener
	udp      net.PacketConn
	served   sync.WaitGroup
	sessions *sessions // of the datagrams that come in

	mu        sync.Mutex
	open      map[net.Conn]bool       // accepted ones; nil once closed
	lost      map[string]time.Time    // by target: when packets were last lost
	heard     map[string]time.Time    // by sender: when it last sent messages
	fails     map[string]failure      // by target: to which no connection can be made
	strangers map[image.NodeID]string // addresses of nodes that are not members as far as this one knows
	sealers   map[string]*sealer      // by target: of the newest connection to it
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

// receive hands on the messages that a node has sent. Its error means that the node does not keep to the
// protocol.
func (t *Transport) receive(from image.NodeID, m raftpb.MessageBatch) error {
	if err := t.checkBatch(from, &m); err != nil {
		return err
	}
	t.mu.Lock()
	t.heard[m.SourceAddress] = time.Now()
	t.mu.Unlock()
	if len(m.Requests) > 0 {
		t.handle(m)
	}
	return nil
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
	if t.udp, err = net.ListenPacket("udp", t.address); err != nil {
		return err // Close follows
	}
	t.listener = t.Port.Listen(access.ProtocolRaft, connectionsPerPeer)
	t.served.Go(t.serveDatagrams)
	t.served.Go(func() {
		for {
			conn, err := t.listener.Accept()
			switch {
			case err != nil:
				return
			case t.track(conn):
				t.served.Go(func() { t.serve(conn.(*tls.Conn)) })
			default:
				conn.Close()
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

// serve takes what a node sends on a connection. One on which something wrong comes is closed, and its sender
// makes another.
func (t *Transport) serve(conn *tls.Conn) {
	defer func() {
		conn.Close()
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.open, conn)
	}()
	from, ok := access.PeerOf(conn.ConnectionState())
	if !ok {
		return
	}
	done, err := t.sessions.add(from, conn.ConnectionState())
	if err != nil {
		return
	}
	defer done()
	if err := greet(conn); err != nil {
		return
	}
	if err := t.take(conn, from); errors.As(err, new(*protocolError)) {
		t.Logger.Warn("a node sent what does not belong here", zap.Uint32("peer", uint32(from)), zap.Error(err),
			zap.String("hint", "run the same version and configuration on every node"))
	}
}

// take takes frames until one is wrong or the connection ends.
func (t *Transport) take(conn net.Conn, from image.NodeID) error {
	var buf bytes.Buffer
	for {
		if err := conn.SetReadDeadline(time.Now().Add(linkIdle)); err != nil {
			return err
		}
		h, err := readHeader(conn)
		if err != nil {
			return err
		}
		if err := conn.SetReadDeadline(time.Now().Add(frameTime(h.size))); err != nil {
			return err
		}
		if err := h.readMessage(conn, &buf); err != nil {
			return err
		}
		if err := t.takeFrame(h.kind, buf.Bytes(), from); err != nil {
			return err
		}
	}
}

// takeFrame hands the message of a frame on.
func (t *Transport) takeFrame(kind uint32, message []byte, from image.NodeID) error {
	if kind == frameBatch {
		var m raftpb.MessageBatch
		if err := decode(&m, message); err != nil {
			return err
		}
		return t.receive(from, m)
	}
	var c raftpb.Chunk
	if err := decode(&c, message); err != nil {
		return err
	}
	if err := t.checkChunk(from, &c); err != nil {
		return err
	}
	if !t.chunk(c) {
		return errChunkRefused
	}
	return nil
}

var errChunkRefused = errors.New("part of a snapshot refused")

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
	conn, err := t.dial(ctx, target)
	if err != nil {
		return nil, err
	}
	return &snapshotLink{conn: conn}, nil
}

// Probe returns those of addresses, each host:port of a member, on which Raft takes connections. It asks all
// at once.
func (t *Transport) Probe(ctx context.Context, addresses []string) map[string]bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var mu sync.Mutex
	answers := map[string]bool{}
	var all sync.WaitGroup
	for _, address := range addresses {
		all.Go(func() {
			conn, err := t.dial(ctx, address)
			if err != nil {
				return
			}
			conn.Close()
			mu.Lock()
			defer mu.Unlock()
			answers[address] = true
		})
	}
	all.Wait()
	return answers
}

// probeTimeout bounds one probe of a node's Raft port.
const probeTimeout = 200 * time.Millisecond
