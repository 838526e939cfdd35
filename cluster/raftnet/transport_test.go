package raftnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	raft "github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"imgcluster/cluster/access"
	"imgcluster/cluster/clustertest/poll"
	"imgcluster/cluster/image"
	"imgcluster/cluster/peerconn"
	"imgcluster/config"
	"imgcluster/crypto"
)

func TestFrames(t *testing.T) {
	var f frames
	var buf bytes.Buffer
	for _, size := range []int{1, 0, 7, frameBufferKept - 1, frameBufferKept, frameBufferKept + 1, 5} {
		want := bytes.Repeat([]byte{byte(size)}, size)
		// The bound of a size may be more than what comes of it.
		frame, err := f.make(frameSnapshot, size+9, func(b []byte) (int, error) { return copy(b, want), nil })
		if err != nil {
			t.Fatal(err)
		}
		kind, err := readFrame(iotest.HalfReader(bytes.NewReader(frame)), &buf)
		if err != nil || kind != frameSnapshot || !bytes.Equal(buf.Bytes(), want) {
			t.Errorf("of %d bytes: kind %x, %d bytes, %v", size, kind, buf.Len(), err)
		}
	}
	if _, err := f.make(frameBatch, frameBytesMax+1, nil); err == nil {
		t.Error("a frame that is too large was made")
	}
	frame, err := f.make(frameBatch, 3, func(b []byte) (int, error) { return copy(b, "abc"), nil })
	if err != nil {
		t.Fatal(err)
	}
	for i := range frame {
		for _, bit := range []byte{1, 0x80} {
			bad := bytes.Clone(frame)
			bad[i] ^= bit
			if _, err := readFrame(bytes.NewReader(bad), &buf); err == nil {
				t.Errorf("byte %d is not what was sent, and was taken", i)
			}
		}
		if _, err := readFrame(bytes.NewReader(frame[:i]), &buf); err == nil {
			t.Errorf("a frame cut at byte %d was taken", i)
		}
	}
}

// freeAddresses returns loopback addresses that nobody listens on.
func freeAddresses(t *testing.T, n int) []string {
	t.Helper()
	ports, err := config.FreePorts(n)
	if err != nil {
		t.Fatal(err)
	}
	addresses := make([]string, n)
	for i, port := range ports {
		addresses[i] = fmt.Sprintf("127.0.0.1:%d", port)
	}
	return addresses
}

// readFrame reads a frame as a transport does.
func readFrame(r io.Reader, buf *bytes.Buffer) (kind uint32, err error) {
	h, err := readHeader(r)
	if err == nil {
		err = h.readMessage(r, buf)
	}
	return h.kind, err
}

// deployment is that of all messages.
const deployment = 7

// replicaNumber is that of all replicas of shard 1, the only one.
const replicaNumber = 3

// replicaOf returns the ID of a node's replica.
func replicaOf(node image.NodeID) uint64 { return replicaNumber<<32 | uint64(node) }

// members are the nodes that a node of a test knows.
type members struct {
	self image.NodeID
	all  map[image.NodeID]string
}

func (m members) Address(id image.NodeID) string   { return m.all[id] }
func (m members) Members() map[image.NodeID]string { return m.all }

func (m members) ReplicaID(shard uint64) (uint64, bool) { return replicaOf(m.self), shard == 1 }

func (m members) NodeOf(replica uint64) image.NodeID { return image.NodeID(uint32(replica)) }

// authorityOf returns the authority of a cluster of this name.
func authorityOf(t testing.TB, name string) *access.Authority {
	t.Helper()
	key := "imgcluster-master-key-v1 f5fac8af2578f500 t07xfydFS4K+p5aN+DoOfwMzq1jI34v53IKaZ6+7L+U="
	master, err := crypto.MasterKeyFromEnv(key)
	if err != nil {
		t.Fatal(err)
	}
	a, err := access.NewAuthority(master, name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// peer is a transport and what came to it.
type peer struct {
	*Transport
	addresses []string
	batches   chan raftpb.MessageBatch
	chunks    chan raftpb.Chunk
	log       *observer.ObservedLogs
}

// factory makes transports of a node, which listens on its address.
func factory(t *testing.T, self image.NodeID, addresses []string) *Factory {
	t.Helper()
	a := authorityOf(t, "test")
	own := peerconn.Credentials{Authority: a, Own: a.Node(self, "127.0.0.1")}
	l, err := net.Listen("tcp", addresses[self-1])
	if err != nil {
		t.Fatal(err)
	}
	port := peerconn.New(l, own, zap.NewNop())
	port.Start()
	t.Cleanup(func() { port.Close() })
	known := map[image.NodeID]string{}
	for i, address := range addresses {
		known[image.NodeID(i+1)] = address
	}
	return &Factory{Options: Options{
		Port: port, Credentials: own, Cluster: members{self, known}, Logger: zap.NewNop(),
	}}
}

func startTransport(t *testing.T, self image.NodeID, addresses []string) *peer {
	t.Helper()
	p := &peer{
		addresses: addresses,
		batches:   make(chan raftpb.MessageBatch, 100), chunks: make(chan raftpb.Chunk, 100),
	}
	f := factory(t, self, addresses)
	var core zapcore.Core
	core, p.log = observer.New(zap.WarnLevel)
	f.Logger = zap.New(core)
	made := f.Create(raft.NodeHostConfig{RaftAddress: addresses[self-1], DeploymentID: deployment},
		func(m raftpb.MessageBatch) { p.batches <- m },
		func(c raftpb.Chunk) bool { p.chunks <- c; return c.ChunkId < 2 })
	if p.Transport = f.Transport; made != p.Transport {
		t.Error("the transport that was made is not the one that is known")
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sync.OnceFunc(func() { p.Close() }))
	return p
}

// linkTo returns a link that has its connection.
func (p *peer) linkTo(t *testing.T, address string) *link {
	t.Helper()
	l, err := p.newLink(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	poll.Until(t, time.Minute, "a connection", func() bool {
		if err := l.connect(); err != nil {
			t.Fatal(err)
		}
		return l.conn != nil
	})
	return l
}

// startTwo starts node 1 and node 2.
func startTwo(t *testing.T) (one, two *peer) {
	t.Helper()
	addresses := freeAddresses(t, 2)
	return startTransport(t, 1, addresses), startTransport(t, 2, addresses)
}

// message is a batch of one heartbeat from node 1 to node 2, which has a number.
func message(from string, number uint64) raftpb.MessageBatch {
	return raftpb.MessageBatch{
		DeploymentId: deployment, SourceAddress: from, BinVer: raftio.TransportBinVersion,
		Requests: []raftpb.Message{{
			Type: raftpb.Heartbeat, ShardID: 1, From: replicaOf(1), To: replicaOf(2), Term: 3, Commit: number,
		}},
	}
}

// chunk is a part of a snapshot from node 1 to node 2.
func chunk(id uint64) raftpb.Chunk {
	return raftpb.Chunk{
		DeploymentId: deployment, BinVer: raftio.TransportBinVersion, ShardID: 1, ReplicaID: replicaOf(2),
		From: replicaOf(1), ChunkId: id, FileChunkId: id, Index: 0xabc,
		Filepath: "snapshot-0000000000000ABC.gbsnap", Data: bytes.Repeat([]byte("y"), 1000),
	}
}

func TestTransport(t *testing.T) {
	one, two := startTwo(t)
	addresses := one.addresses
	l := one.linkTo(t, addresses[1])
	defer l.Close()
	large := message(addresses[0], 0)
	large.Requests[0].Entries = []raftpb.Entry{{Index: 1, Cmd: bytes.Repeat([]byte("x"), 3<<20)}}
	for _, want := range []raftpb.MessageBatch{message(addresses[0], 1), large, message(addresses[0], 2)} {
		if two.HeardWithin(addresses[0], time.Hour) != (want.Requests[0].Commit != 1) {
			t.Error("a node counts as heard before it sent something, or not after it")
		}
		if err := l.SendMessageBatch(want); err != nil {
			t.Fatal(err)
		}
		if got := <-two.batches; !reflect.DeepEqual(got, want) {
			t.Errorf("got %d requests from %s", len(got.Requests), got.SourceAddress)
		}
	}

	s, err := one.GetSnapshotConnection(t.Context(), addresses[1])
	if err != nil {
		t.Fatal(err)
	}
	for id := range uint64(3) { // the third one is refused, which the sender need not notice
		if err := s.SendChunk(chunk(id)); err != nil {
			t.Fatal(err)
		}
		if got := <-two.chunks; got.ChunkId != id || len(got.Data) != 1000 {
			t.Errorf("chunk %d: %v", id, got.ChunkId)
		}
	}
	s.Close()
}

// TestTransportGarbage has a node send what is not a message; the transport still works.
func TestTransportGarbage(t *testing.T) {
	one, two := startTwo(t)
	var f frames
	noBatch, err := f.make(frameBatch, 4,
		func(b []byte) (int, error) { return copy(b, "\xff\xff\xff\xff"), nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, garbage := range [][]byte{
		[]byte("GET / HTTP/1.1\r\n\r\n"), noBatch, bytes.Repeat([]byte{0xff}, 2*datagramBytesMax),
	} {
		conn, err := one.dial(t.Context(), two.addresses[1])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(garbage); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil { // it is closed
			t.Error("garbage was answered")
		}
		conn.Close()
		expectWorks(t, one, two)
	}
}

// expectWorks sends a message.
func expectWorks(t *testing.T, one, two *peer) {
	t.Helper()
	l := one.linkTo(t, two.addresses[1])
	defer l.Close()
	want := message(one.addresses[0], 1)
	if err := l.SendMessageBatch(want); err != nil {
		t.Fatal(err)
	}
	if got := <-two.batches; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

// TestDatagrams sends to a node to which the connection broke, and another one is being made.
func TestDatagrams(t *testing.T) {
	one, two := startTwo(t)
	l := one.linkTo(t, two.addresses[1])
	defer l.Close()
	l.conn.NetConn().Close()
	l.conn, l.dialing = nil, make(chan dialed, 1)
	from := one.addresses[0]
	m := message(from, 0)
	for i := range uint64(50) {
		add := message("", i+1).Requests[0]
		if i == 20 { // too large for a datagram
			add.Entries = []raftpb.Entry{{Cmd: make([]byte, datagramBytesMax)}}
		}
		m.Requests = append(m.Requests, add)
	}
	if err := l.SendMessageBatch(m); err != nil {
		t.Fatal(err)
	}
	var got []raftpb.Message
	for len(got) < len(m.Requests)-1 {
		b := <-two.batches
		if b.DeploymentId != m.DeploymentId || b.SourceAddress != m.SourceAddress {
			t.Errorf("datagram of %+v", b)
		}
		got = append(got, b.Requests...)
	}
	m.Requests = append(m.Requests[:21], m.Requests[22:]...)
	if !reflect.DeepEqual(got, m.Requests) {
		t.Errorf("of %d messages came %d", len(m.Requests), len(got))
	}

	// When the connection is there, it is used, and after a loss both are.
	conn, err := one.dial(t.Context(), two.addresses[1])
	if err != nil {
		t.Fatal(err)
	}
	l.dialing <- dialed{conn: conn}
	one.lossy(two.addresses[1], true)
	if err := l.SendMessageBatch(message(from, 99)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if b := <-two.batches; b.Requests[0].Commit != 99 {
			t.Errorf("got %+v", b)
		}
	}
}

// TestForgedDatagrams sends datagrams as somebody who listens to the network may: changed, again, cut, and of
// sessions that there are not.
func TestForgedDatagrams(t *testing.T) {
	one, two := startTwo(t)
	l := one.linkTo(t, two.addresses[1])
	defer l.Close()
	conn, err := net.Dial("udp", two.addresses[1])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	seal := func(number uint64) []byte {
		m := message(one.addresses[0], number)
		b, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return l.sealer.seal(nil, b)
	}
	send := func(datagram []byte) {
		t.Helper()
		if _, err := conn.Write(datagram); err != nil {
			t.Fatal(err)
		}
	}
	late := seal(1)
	good := seal(2)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		send(bad)
		send(good[:i])
	}
	send(nil)
	plain := message(one.addresses[0], 3)
	b, err := plain.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	send(b)
	expect := func(number uint64) {
		t.Helper()
		if got := <-two.batches; got.Requests[0].Commit != number {
			t.Errorf("message %d came, not %d", got.Requests[0].Commit, number)
		}
	}
	send(good)
	expect(2)
	send(good)
	send(late) // what is only late is taken
	expect(1)
	send(late)
	for range 64 {
		seal(4)
	}
	send(seal(5))
	expect(5)
	send(late)
	send(good)
	send(seal(6))
	expect(6)

	// What one has sent does not come back to it.
	back, err := net.Dial("udp", one.addresses[0])
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	if _, err := back.Write(seal(7)); err != nil {
		t.Fatal(err)
	}
	expectWorks(t, one, two)
	if len(one.batches) > 0 || len(two.batches) > 0 {
		t.Error("a datagram was taken twice, or back")
	}
}

// TestWindow compares the window with a set of all counters that came.
func TestWindow(t *testing.T) {
	var w window
	seen := map[uint64]bool{0: true} // counters begin at 1
	random := rand.New(rand.NewPCG(1, 2))
	at := uint64(1)
	for range 20_000 {
		at += random.Uint64N(8)
		counter := at - min(at-1, random.Uint64N(100))
		if random.IntN(500) == 0 {
			counter = at + 200
			at = counter
		}
		fresh := w.fresh(counter)
		tooOld := w.last >= 64 && counter <= w.last-64
		if want := !seen[counter] && !tooOld; fresh != want {
			t.Fatalf("counter %d after %d: fresh %v, want %v", counter, w.last, fresh, want)
		}
		if fresh {
			w.take(counter)
			seen[counter] = true
		}
	}
	if len(seen) < 1000 {
		t.Errorf("only %d counters were taken", len(seen))
	}
}

// TestSessions: of a node the newest sessions are kept, and one whose connection has ended for a while.
func TestSessions(t *testing.T) {
	one, two := startTwo(t)
	conn, err := one.dial(t.Context(), two.addresses[1])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	state := conn.ConnectionState()
	s := newSessions()
	for range 3 {
		if _, err := s.add(1, state); err != nil { // the same ID each time
			t.Fatal(err)
		}
	}
	if len(s.byID) != 1 {
		t.Errorf("%d sessions of one connection", len(s.byID))
	}
	for i := range byte(2 * sessionsPerPeer) {
		s.trim(2)
		s.count++
		s.byID[[sessionIDBytes]byte{i}] = &session{peer: 2, opened: s.count}
	}
	if len(s.byID) != 1+sessionsPerPeer || s.byID[[sessionIDBytes]byte{2*sessionsPerPeer - 1}] == nil ||
		s.byID[[sessionIDBytes]byte{sessionsPerPeer - 1}] != nil {
		t.Errorf("%d sessions are kept", len(s.byID))
	}
	sealed, err := newSealer(state)
	if err != nil {
		t.Fatal(err)
	}
	open := func() bool {
		peer, message, ok := s.open(nil, sealed.seal(nil, []byte("x")))
		return ok && peer == 1 && string(message) == "x"
	}
	if !open() {
		t.Error("a datagram of a session is not taken")
	}
	for _, x := range s.byID {
		x.ended = time.Now().Add(-sessionKept / 2)
	}
	if !open() {
		t.Error("a datagram is not taken soon after the connection's end")
	}
	for _, x := range s.byID {
		x.ended = time.Now().Add(-2 * sessionKept)
	}
	if open() {
		t.Error("a datagram is taken long after the connection's end")
	}
	if s.trim(3); len(s.byID) != 0 {
		t.Errorf("%d ended sessions are kept", len(s.byID))
	}
}

// TestLinkBreaks ends connections under a link. As long as the node is heard it makes another one; a
// node that is down is an error, which makes dragonboat wait.
func TestLinkBreaks(t *testing.T) {
	one, two := startTwo(t)
	addresses := one.addresses
	l := one.linkTo(t, addresses[1])
	defer l.Close()
	send := func(number uint64) error { return l.SendMessageBatch(message(addresses[0], number)) }
	if err := send(1); err != nil {
		t.Fatal(err)
	}
	<-two.batches

	one.mu.Lock()
	one.heard[addresses[1]] = time.Now().Add(time.Hour)
	one.mu.Unlock()
	l.conn.NetConn().Close()
	if err := send(2); err != nil {
		t.Errorf("the node is heard, its connection broke: %v", err)
	}
	poll.Until(t, time.Minute, "another connection", func() bool { return l.connect() == nil && l.conn != nil })
	if err := send(3); err != nil {
		t.Fatal(err)
	}
	if b := <-two.batches; b.Requests[0].Commit != 3 {
		t.Errorf("got %+v", b)
	}

	two.Close()
	one.mu.Lock()
	clear(one.heard)
	one.mu.Unlock()
	var err error
	for err == nil { // what was sent first had the other end refuse it
		err = send(4)
	}
	if _, err := one.dial(t.Context(), addresses[1]); err == nil {
		t.Error("connected to a node that is down")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := one.GetSnapshotConnection(ctx, addresses[1]); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestTransportPortTaken(t *testing.T) {
	addresses := freeAddresses(t, 1)
	f := factory(t, 1, addresses)
	l, err := net.ListenPacket("udp", addresses[0])
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	made := f.Create(raft.NodeHostConfig{RaftAddress: addresses[0]}, nil, nil)
	if err := made.Start(); err == nil {
		t.Error("started on a port that is taken")
	}
	if err := made.Close(); err != nil {
		t.Error(err)
	}
}

// TestValidAddress: Raft takes the host names that the configuration takes, those of real networks too.
func TestValidAddress(t *testing.T) {
	for address, want := range map[string]bool{
		"10.0.0.1:9001":  true,
		"node-1:9001":    true,
		"10.0.0.1":       false,
		"[::1]:9001":     true,
		"[fd00::1]:9001": true,
		":9001":          true,
		"::1:9001":       false,
		"h:0":            false,
		"h:65536":        false,
		"h:http":         false,
		"9001":           false,
		"node_1:9001":    true, "_x.node_1.test:9001": true, "node1.example.org.:9001": true,
	} {
		if new(Factory).Validate(address) != want {
			t.Errorf("%s: want %v", address, want)
		}
	}
}

// TestProbe: a node whose port is open, and where Raft does not run, does not answer.
func TestProbe(t *testing.T) {
	addresses := freeAddresses(t, 4)
	one := startTransport(t, 1, addresses)
	startTransport(t, 2, addresses)
	factory(t, 3, addresses)
	got := one.Probe(t.Context(), addresses[1:])
	if !maps.Equal(got, map[string]bool{addresses[1]: true}) {
		t.Errorf("answers: %v", got)
	}
	if _, err := one.dial(t.Context(), "127.0.0.1:1"); err == nil {
		t.Error("connected to an address that is no member's")
	}
}

// TestChecks has node 1 send what a node does not send: the library never sees it, and the connection ends.
func TestChecks(t *testing.T) {
	one, two := startTwo(t)
	address := one.addresses[0]
	batch := func(change func(*raftpb.MessageBatch)) func() raftpb.MessageBatch {
		return func() raftpb.MessageBatch {
			m := message(address, 1)
			m.Requests = append(m.Requests, message(address, 2).Requests...)
			change(&m)
			return m
		}
	}
	second := func(change func(*raftpb.Message)) func() raftpb.MessageBatch {
		return batch(func(m *raftpb.MessageBatch) { change(&m.Requests[1]) })
	}
	wrong := map[string]func() raftpb.MessageBatch{
		"another cluster":       batch(func(m *raftpb.MessageBatch) { m.DeploymentId++ }),
		"another version":       batch(func(m *raftpb.MessageBatch) { m.BinVer++ }),
		"no address":            batch(func(m *raftpb.MessageBatch) { m.SourceAddress = "" }),
		"no such address":       batch(func(m *raftpb.MessageBatch) { m.SourceAddress = "10.0.0.1:1" }),
		"another's address":     batch(func(m *raftpb.MessageBatch) { m.SourceAddress = two.addresses[1] }),
		"from another":          second(func(m *raftpb.Message) { m.From = replicaOf(3) }),
		"from the receiver":     second(func(m *raftpb.Message) { m.From = replicaOf(2) }),
		"from nobody":           second(func(m *raftpb.Message) { m.From = 0 }),
		"unknown type":          second(func(m *raftpb.Message) { m.Type = 29 }),
		"negative type":         second(func(m *raftpb.Message) { m.Type = -1 }),
		"large type":            second(func(m *raftpb.Message) { m.Type = 1 << 30 }),
		"snapshot as a message": second(func(m *raftpb.Message) { m.Type = raftpb.InstallSnapshot }),
	}
	for number, name := range raftpb.MessageType_name {
		kind := raftpb.MessageType(number)
		if !slices.Contains(fromPeers, kind) {
			wrong[name] = second(func(m *raftpb.Message) { m.Type = kind })
		}
	}
	for what, m := range wrong {
		t.Run(what, func(t *testing.T) {
			l := one.linkTo(t, two.addresses[1])
			defer l.Close()
			if err := l.SendMessageBatch(m()); err != nil {
				t.Fatal(err)
			}
			expectRefused(t, two, l.conn)
			if len(two.batches) > 0 {
				t.Error("it was handed on")
			}
		})
	}
	// What is for a replica that is not here (any more) is left out.
	away := batch(func(m *raftpb.MessageBatch) {
		for range 3 {
			m.Requests = append(m.Requests, message(address, 9).Requests...)
		}
		m.Requests[0].To = 0
		m.Requests[2].To++
		m.Requests[3].ShardID = 2
		m.Requests[4].To = 2
	})
	l := one.linkTo(t, two.addresses[1])
	defer l.Close()
	if err := l.SendMessageBatch(away()); err != nil {
		t.Fatal(err)
	}
	if got := <-two.batches; len(got.Requests) != 1 || got.Requests[0].Commit != 2 {
		t.Errorf("got %+v", got.Requests)
	}
	for _, kind := range fromPeers {
		if err := l.SendMessageBatch(second(func(m *raftpb.Message) { m.Type = kind })()); err != nil {
			t.Fatal(err)
		}
		if got := <-two.batches; len(got.Requests) != 2 || got.Requests[1].Type != kind {
			t.Errorf("type %s: got %+v", kind, got.Requests)
		}
	}
}

// refusedWithin is how long a node may take to end a connection. Tests of a few that it keeps do not hang.
const refusedWithin = 15 * time.Second

// expectRefused expects that a node ends a connection, and logs why once.
func expectRefused(t *testing.T, at *peer, conn net.Conn) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(refusedWithin)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection is not ended: %v", err)
	}
	if logged := at.log.TakeAll(); len(logged) != 1 {
		t.Errorf("log: %+v", logged)
	}
}

// TestChunkChecks has node 1 send parts of snapshots that no node sends.
func TestChunkChecks(t *testing.T) {
	one, two := startTwo(t)
	for what, change := range map[string]func(*raftpb.Chunk){
		"another cluster":   func(c *raftpb.Chunk) { c.DeploymentId++ },
		"another version":   func(c *raftpb.Chunk) { c.BinVer++ },
		"from another":      func(c *raftpb.Chunk) { c.From = replicaOf(3) },
		"another file":      func(c *raftpb.Chunk) { c.Filepath = "snapshot-0000000000000ABD.gbsnap" },
		"no file":           func(c *raftpb.Chunk) { c.Filepath = "" },
		"the folder":        func(c *raftpb.Chunk) { c.Filepath = "." },
		"the folder above":  func(c *raftpb.Chunk) { c.Filepath = "a/.." },
		"the root":          func(c *raftpb.Chunk) { c.Filepath = "/" },
		"further files":     func(c *raftpb.Chunk) { c.HasFileInfo = true },
		"a witness":         func(c *raftpb.Chunk) { c.Witness = true },
		"poison":            func(c *raftpb.Chunk) { c.ChunkCount = raftpb.PoisonChunkCount },
		"amid another file": func(c *raftpb.Chunk) { c.FileChunkId = 3 },
		"another node's":    func(c *raftpb.Chunk) { c.ReplicaID = replicaOf(1) },
		"no replica":        func(c *raftpb.Chunk) { c.ReplicaID = 0 },
		"another shard":     func(c *raftpb.Chunk) { c.ShardID = 2 },
	} {
		t.Run(what, func(t *testing.T) {
			conn, err := one.dial(t.Context(), two.addresses[1])
			if err != nil {
				t.Fatal(err)
			}
			l := &snapshotLink{conn: conn}
			defer l.Close()
			c := chunk(0)
			change(&c)
			if err := l.SendChunk(c); err != nil {
				t.Fatal(err)
			}
			if c.ReplicaID == replicaOf(2) && c.ShardID == 1 {
				expectRefused(t, two, conn)
			} else if _, err := conn.Read(make([]byte, 1)); err == nil {
				t.Error("the connection is not ended")
			}
			if len(two.chunks) > 0 {
				t.Error("it was handed on")
			}
		})
	}
}

// TestNewNode: a node that another one does not know as a member is heard under its first address.
func TestNewNode(t *testing.T) {
	one, two := startTwo(t)
	delete(two.Cluster.(members).all, 1)
	expectWorks(t, one, two)
	for _, address := range []string{"10.0.0.1:1", two.addresses[1], ""} {
		if two.receive(1, message(address, 1)) == nil {
			t.Errorf("heard as %q too", address)
		}
	}
	if two.receive(3, message(one.addresses[0], 1)) == nil {
		t.Error("another node is heard under that address")
	}
	if two.nodeAt(one.addresses[0]) != 1 {
		t.Error("the new node cannot be answered")
	}
}
