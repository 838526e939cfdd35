package raftnet

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	raft "github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"

	"imgcluster/cluster/access"
	"imgcluster/cluster/image"
)

// incoming is a connection on which nothing else comes than what is read.
type incoming struct {
	net.Conn
	io.Reader
}

func (c incoming) Read(b []byte) (int, error)    { return c.Reader.Read(b) }
func (incoming) SetReadDeadline(time.Time) error { return nil }

// taken is what a transport has handed to the library.
type taken struct {
	batches []raftpb.MessageBatch
	chunks  []raftpb.Chunk
}

// takes returns the transport of node 2 without a network.
func takes(f *testing.F) (*Transport, *taken, []string) {
	f.Helper()
	addresses := []string{"127.0.0.1:1001", "127.0.0.1:1002"}
	got := &taken{}
	known := map[image.NodeID]string{1: addresses[0], 2: addresses[1]}
	t := &Factory{Options: Options{Cluster: members{2, known}}}
	t.Create(raft.NodeHostConfig{RaftAddress: addresses[1], DeploymentID: deployment},
		func(m raftpb.MessageBatch) { got.batches = append(got.batches, m) },
		func(c raftpb.Chunk) bool { got.chunks = append(got.chunks, c); return true })
	return t.Transport, got, addresses
}

// everyMessage returns a batch with a message of each type that Raft has, and more.
func everyMessage(f *testing.F, from string) (all [][]byte) {
	f.Helper()
	for kind := range raftpb.MessageType(32) {
		m := message(from, 1)
		m.Requests[0].Type = kind
		m.Requests[0].Entries = []raftpb.Entry{{Index: 1, Term: 1, Cmd: []byte("x")}}
		b, err := m.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

// FuzzFrames has node 1 send anything to node 2: what gets through to the library is what a node sends, in
// its own name, to a replica that is there.
func FuzzFrames(f *testing.F) {
	transport, got, addresses := takes(f)
	for _, b := range everyMessage(f, addresses[0]) {
		f.Add(frameBatch, b, []byte(nil))
	}
	c := chunk(1)
	b, err := c.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(frameSnapshot, b, []byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add(frameBatch, []byte{0xff, 0xff, 0xff, 0xff}, []byte{0x49, 0x52, 0x54, 1, 5, 255, 255, 255, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, kind uint32, message, rest []byte) {
		var made frames
		frame, err := made.make(kind, len(message), func(b []byte) (int, error) { return copy(b, message), nil })
		if err != nil {
			t.Fatal(err)
		}
		*got = taken{}
		if transport.take(incoming{Reader: bytes.NewReader(append(frame, rest...))}, 1) == nil {
			t.Fatal("a connection that has ended goes on")
		}
		for _, m := range got.batches {
			if m.SourceAddress != addresses[0] || m.DeploymentId != deployment ||
				m.BinVer != raftio.TransportBinVersion {
				t.Fatalf("from %s: %+v", m.SourceAddress, m)
			}
			for _, r := range m.Requests {
				if r.ShardID != 1 || r.To != replicaOf(2) || uint32(r.From) != 1 || !slices.Contains(fromPeers, r.Type) {
					t.Fatalf("got through: %+v", r)
				}
			}
		}
		for _, c := range got.chunks {
			if c.ShardID != 1 || c.ReplicaID != replicaOf(2) || uint32(c.From) != 1 || c.DeploymentId != deployment ||
				strings.Contains(path.Base(c.Filepath), "/") || c.Witness || c.HasFileInfo {
				t.Fatalf("got through: %+v", c)
			}
		}
	})
}

// stateOf returns the server's side of a connection of two nodes.
func stateOf(f *testing.F) tls.ConnectionState {
	f.Helper()
	a := authorityOf(f, "test")
	near, far := net.Pipe()
	server := tls.Server(near, a.PeerServer(a.Node(2, "b")))
	client := tls.Client(far, a.PeerClient(a.Node(1, "a"), 2, access.ProtocolRaft))
	go client.Handshake() // else the server's fails
	if err := server.Handshake(); err != nil {
		f.Fatal(err)
	}
	near.Close()
	far.Close()
	return server.ConnectionState()
}

// FuzzDatagrams sends any datagram to a node to which there is a session: none is taken.
func FuzzDatagrams(f *testing.F) {
	s := newSessions()
	id, aead, err := sessionKey(stateOf(f))
	if err != nil {
		f.Fatal(err)
	}
	s.byID[id] = &session{peer: 1, aead: aead}
	good := (&sealer{id: id, aead: aead}).seal(nil, []byte("message"))
	f.Add([]byte(nil))
	f.Add(good[:datagramHeader])
	f.Add(good[:len(good)-1])
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		f.Add(bad)
	}
	for _, b := range everyMessage(f, "127.0.0.1:1001") {
		f.Add(b)
		f.Add(append(id[:], b...))
	}
	f.Fuzz(func(t *testing.T, datagram []byte) {
		if _, message, ok := s.open(nil, datagram); ok && !bytes.Equal(datagram, good) {
			t.Fatalf("%x is taken as %x", datagram, message)
		}
	})
}
