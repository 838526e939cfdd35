package raftnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"reflect"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	raft "github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftpb"

	"imgcluster/config"
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

// peer is a transport and what came to it.
type peer struct {
	*Transport
	batches chan raftpb.MessageBatch
	chunks  chan raftpb.Chunk
}

func startTransport(t *testing.T, address string) *peer {
	t.Helper()
	p := &peer{batches: make(chan raftpb.MessageBatch, 100), chunks: make(chan raftpb.Chunk, 100)}
	var f Factory
	made := f.Create(raft.NodeHostConfig{RaftAddress: address},
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

// message is a batch of one heartbeat, which has a number.
func message(from string, number uint64) raftpb.MessageBatch {
	return raftpb.MessageBatch{
		DeploymentId: 7, SourceAddress: from, BinVer: 1,
		Requests: []raftpb.Message{{
			Type: raftpb.Heartbeat, ShardID: 1, From: 1, To: 2, Term: 3, Commit: number,
		}},
	}
}

func TestTransport(t *testing.T) {
	addresses := freeAddresses(t, 2)
	one := startTransport(t, addresses[0])
	two := startTransport(t, addresses[1])
	l, err := one.GetConnection(t.Context(), addresses[1])
	if err != nil {
		t.Fatal(err)
	}
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
		chunk := raftpb.Chunk{ShardID: 1, ChunkId: id, Data: bytes.Repeat([]byte("y"), 1000)}
		if err := s.SendChunk(chunk); err != nil {
			t.Fatal(err)
		}
		if got := <-two.chunks; got.ChunkId != id || len(got.Data) != 1000 {
			t.Errorf("chunk %d: %v", id, got.ChunkId)
		}
	}
	s.Close()
}

// TestTransportGarbage sends what is not a message; the transport still works.
func TestTransportGarbage(t *testing.T) {
	addresses := freeAddresses(t, 2)
	one := startTransport(t, addresses[0])
	two := startTransport(t, addresses[1])
	var f frames
	noBatch, err := f.make(frameBatch, 4,
		func(b []byte) (int, error) { return copy(b, "\xff\xff\xff\xff"), nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, garbage := range [][]byte{
		[]byte("GET / HTTP/1.1\r\n\r\n"), noBatch, bytes.Repeat([]byte{0xff}, 2*datagramBytesMax),
	} {
		for _, network := range []string{"tcp", "udp"} {
			conn, err := net.Dial(network, addresses[1])
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write(garbage); err != nil {
				t.Fatal(err)
			}
			if network == "tcp" { // it is closed
				if _, err := conn.Read(make([]byte, 1)); err == nil {
					t.Error("garbage was answered")
				}
			}
			conn.Close()
		}
	}
	l, err := one.GetConnection(t.Context(), addresses[1])
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.SendMessageBatch(message(addresses[0], 1)); err != nil {
		t.Fatal(err)
	}
	<-two.batches
}

// TestDatagrams sends to a node that takes no connection: its queue of them is full.
func TestDatagrams(t *testing.T) {
	addresses := freeAddresses(t, 2)
	one := startTransport(t, addresses[0])
	two := startTransport(t, addresses[1])
	to, err := net.ResolveUDPAddr("udp", addresses[1])
	if err != nil {
		t.Fatal(err)
	}
	l := &link{
		transport: one.Transport, target: addresses[1], to: to, dialing: make(chan dialed, 1),
		cancel: func() {},
	}
	m := message(addresses[0], 0)
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
	conn, err := dialRaft(t.Context(), addresses[1])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	l.dialing <- dialed{conn: conn}
	one.lossy(addresses[1], true)
	if err := l.SendMessageBatch(message(addresses[0], 99)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if b := <-two.batches; b.Requests[0].Commit != 99 {
			t.Errorf("got %+v", b)
		}
	}
}

// TestLinkBreaks ends connections under a link. As long as the node is heard it makes another one; a
// node that is down is an error, which makes dragonboat wait.
func TestLinkBreaks(t *testing.T) {
	addresses := freeAddresses(t, 2)
	one := startTransport(t, addresses[0])
	two := startTransport(t, addresses[1])
	l, err := one.newLink(t.Context(), addresses[1])
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	send := func(number uint64) error { return l.SendMessageBatch(message(addresses[0], number)) }
	if err := send(1); err != nil {
		t.Fatal(err)
	}
	<-two.batches

	one.mu.Lock()
	one.heard[addresses[1]] = time.Now().Add(time.Hour)
	one.mu.Unlock()
	l.conn.Close()
	if err := send(2); err != nil {
		t.Errorf("the node is heard, its connection broke: %v", err)
	}
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
	for err == nil { // what was sent first had the other end refuse it
		err = send(4)
	}
	if _, err := one.GetConnection(t.Context(), addresses[1]); err == nil {
		t.Error("connected to a node that is down")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := one.GetSnapshotConnection(ctx, addresses[1]); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestTransportPortTaken(t *testing.T) {
	address := freeAddresses(t, 1)[0]
	l, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var f Factory
	made := f.Create(raft.NodeHostConfig{RaftAddress: address}, nil, nil)
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

func TestProbe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := Probe([]string{l.Addr().String(), freeAddresses(t, 1)[0]})
	if !maps.Equal(got, map[string]bool{l.Addr().String(): true}) {
		t.Errorf("answers: %v", got)
	}
}
