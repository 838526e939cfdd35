package cluster_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"imgcluster/cluster/access"
	"imgcluster/cluster/bootstrap"
	"imgcluster/cluster/catalog"
	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/clustertest/env"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/crypto"
)

// What the strangers do, of each kind against each port; STRANGERS in the environment multiplies it.
const (
	strangerFrames    = 420  // mutated: 10,000 in all
	strangerDatagrams = 3000 // of made-up senders
	strangerLarge     = 6    // connections that announce 96 MiB
)

// TestStrangers has whoever is on the network attack both ports of every node while a run goes on: without
// credentials, with those of another cluster, with keys that were removed, with another user's; and a node
// that says it is another one. They send whatever has once ended a node or changed the cluster, and mutations
// of it. Nothing changes but what the run stores, nothing panics, nothing stays open, all nodes start again.
//
// It does not run in parallel, since it counts what all nodes of this process hold.
func TestStrangers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster and attacks it")
	}
	core, logged := observer.New(zap.WarnLevel)
	c := clustertest.Start(t, clustertest.Options{Secured: true, Log: core})
	admin := c.Client(t, client.Broadcast)
	body := clustertest.Image(1, 100_000)
	for user, name := range map[string]string{"alice": "a.png", "mallory": "own.png", "stranger": "b/c.png"} {
		c.Put(t, 1, user, name, body, nil)
	}
	s, v := newStrangers(t, c), newVisitor(t, c, admin)
	for _, id := range c.IDs() {
		s.clients(id) // what it stores is part of what must not change
	}
	run := startRun(t, admin) // so that all that a run needs is there before
	run.stopAfter(t, 20)
	c.HTTP.CloseIdleConnections()
	c.ExpectSettled(t)
	before, held := observe(t, c), holds()

	run = startRun(t, admin)
	var attacks sync.WaitGroup
	attacks.Go(v.routes)
	attacks.Go(func() { v.floods(s) })
	for _, id := range c.IDs() {
		attacks.Go(func() {
			for _, addr := range []string{c.Addr(id), c.RaftAddr(id)} {
				s.datagrams(addr)
				s.plain(addr)
			}
			s.foreigners(c.RaftAddr(id))
			s.impostors(id)
		})
	}
	attacks.Wait()
	run.stopAfter(t, 20)
	v.close()

	c.ExpectSettled(t)
	hashes := map[string]bool{}
	for _, id := range c.IDs() {
		clustertest.Poll(t, "equal catalogs", func() bool {
			hash, err := c.Node(id).CatalogHash()
			hashes[hash] = true
			return err == nil && len(hashes) == 1
		})
	}
	before.expect(t, c)
	run.expectImages(t, c)
	c.HTTP.CloseIdleConnections()
	held.expect(t)
	expectQuiet(t, logged)

	c.Restart(c.IDs()...) // what they have written down is good
	c.ExpectImage(t, "alice", "a.png", body, c.IDs()...)
	c.ExpectNoPlaintext(t)
	before.expect(t, c)
}

// strangers attack a cluster.
type strangers struct {
	t          *testing.T
	c          *clustertest.Cluster
	deployment uint64
	hello      bootstrap.Hello // of node 1
	times      int             // how often each thing is done
}

func newStrangers(t *testing.T, c *clustertest.Cluster) *strangers {
	t.Helper()
	s := &strangers{t: t, c: c, times: env.Number(t, "STRANGERS", 1)}
	text, err := os.ReadFile(filepath.Join(c.Config.DataDir(1), "node.json"))
	if err != nil {
		t.Fatal(err)
	}
	var id struct {
		ClusterID string `json:"cluster_id"`
	}
	if err := json.Unmarshal(text, &id); err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(id.ClusterID)
	if err != nil || len(b) < 8 {
		t.Fatalf("cluster ID %q: %v", id.ClusterID, err)
	}
	s.deployment = binary.BigEndian.Uint64(b) | 1 // see deploymentID
	// What a node tells another one is taken for known.
	r := c.DoAs(t, 2, http.MethodPost, 1, wire.HelloPath, mustJSON(t, bootstrap.Hello{Node: 2}),
		http.Header{"Content-Type": {"application/json"}})
	if err := json.Unmarshal(r.Body, &s.hello); err != nil || s.hello.Node != 1 {
		t.Fatalf("hello: %d %s, %v", r.Status, r.Body, err)
	}
	return s
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The kinds of Raft frames; see package raftnet.
const (
	frameBatch    = 0x49525401
	frameSnapshot = 0x49525402
)

// frame makes a frame as package raftnet does.
func frame(kind uint32, message []byte) []byte {
	table := crc32.MakeTable(crc32.Castagnoli)
	b := binary.BigEndian.AppendUint32(nil, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(message)))
	b = binary.BigEndian.AppendUint32(b, crc32.Update(crc32.Checksum(b, table), table, message))
	return append(b, message...)
}

// batch is a message of a node to another one for each shard. Replicas that bootstrap a cluster have the IDs
// of their nodes.
func (s *strangers) batch(from, to image.NodeID, change func(*raftpb.Message)) raftpb.MessageBatch {
	m := raftpb.MessageBatch{
		DeploymentId: s.deployment, SourceAddress: s.c.RaftAddr(from), BinVer: raftio.TransportBinVersion,
	}
	for shard := range uint64(s.c.Config.Cluster.DataShards + 1) {
		one := raftpb.Message{
			Type: raftpb.Heartbeat, ShardID: shard + 1, From: uint64(from), To: uint64(to), Term: math.MaxUint64,
		}
		change(&one)
		m.Requests = append(m.Requests, one)
	}
	return m
}

// messages are batches that have ended a node or kept it from starting again, and one for every type of
// message.
func (s *strangers) messages(from, to image.NodeID) (all []raftpb.MessageBatch) {
	all = append(all,
		s.batch(from, to, func(*raftpb.Message) {}),
		s.batch(from, to, func(m *raftpb.Message) { m.To = 0 }),
		s.batch(from, to, func(m *raftpb.Message) { m.From = 0 }),
		s.batch(from, to, func(m *raftpb.Message) { m.ShardID += 1 << 40 }))
	for kind := range raftpb.MessageType(40) {
		all = append(all, s.batch(from, to, func(m *raftpb.Message) { m.Type, m.Term = kind, 0 }))
	}
	stranger := s.batch(from, to, func(m *raftpb.Message) { m.To = 0 })
	stranger.SourceAddress = "192.0.2.1:9"
	return append(all, stranger)
}

func marshal(t *testing.T, m interface{ Marshal() ([]byte, error) }) []byte {
	b, err := m.Marshal()
	if err != nil {
		t.Error(err)
	}
	return b
}

// mutate returns b with some bits flipped, a part cut off or one put in.
func mutate(random *mathrand.Rand, b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + random.IntN(4) {
		at := random.IntN(len(b))
		switch random.IntN(4) {
		case 0:
			b = b[:at+1]
		case 1:
			b = append(b[:at:at], append([]byte{0xff, 0xff, 0xff, 0x7f}, b[at:]...)...)
		default:
			b[at] ^= 1 << random.IntN(8)
		}
	}
	return b
}

func (s *strangers) random() *mathrand.Rand { return mathrand.New(mathrand.NewPCG(1, 2)) }

// datagrams sends datagrams: plain messages, as nodes once sent them, mutated ones, noise, and messages of
// senders that there are not.
func (s *strangers) datagrams(addr string) {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer conn.Close()
	send := func(b []byte) { conn.Write(b) } // where nobody takes datagrams, the next one is refused
	random := s.random()
	for _, m := range s.messages(3, 1) {
		b := marshal(s.t, &m)
		for _, packet := range [][]byte{b, frame(frameBatch, b), append(make([]byte, 16), b...)} {
			send(packet)
			for range s.times * strangerFrames / 40 {
				send(mutate(random, packet))
			}
		}
	}
	for i := range s.times * strangerDatagrams {
		m := s.batch(3, 1, func(m *raftpb.Message) { m.From = uint64(i + 10) })
		m.SourceAddress = fmt.Sprintf("10.%d.%d.%d:9001", i>>16&0xff, i>>8&0xff, i&0xff)
		send(frame(frameBatch, marshal(s.t, &m)))
	}
}

// plain sends without TLS: frames, mutated ones, noise, HTTP, and the beginning of frames of 96 MiB.
func (s *strangers) plain(addr string) {
	random := s.random()
	all := s.messages(3, 1)
	for i := range s.times * strangerFrames {
		m := all[i%len(all)]
		b := frame(frameBatch, marshal(s.t, &m))
		switch i % 4 {
		case 1:
			b = frame(frameSnapshot, marshal(s.t, &m))
		case 2:
			b = []byte("POST " + wire.JoinPath + " HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
		case 3:
			b = append([]byte{0x16, 3, 1}, b...) // as TLS begins
		}
		if i >= len(all) {
			b = mutate(random, b)
		}
		s.talk(addr, nil, b)
	}
	var open []net.Conn
	for range strangerLarge {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			s.t.Error(err)
			continue
		}
		open = append(open, conn)
		conn.SetWriteDeadline(time.Now().Add(time.Second))
		conn.Write(append(frame(frameBatch, nil)[:4], 6, 0, 0, 0, 0, 0, 0, 0))
		for range 16 {
			conn.Write(make([]byte, 1<<20)) // fails once the connection is closed
		}
	}
	for _, conn := range open {
		conn.Close()
	}
}

// talk sends bytes on a new connection, and reads what comes until it is closed or nothing comes for a while.
// It returns the answer.
func (s *strangers) talk(addr string, c *tls.Config, b []byte) []byte {
	var conn net.Conn
	var err error
	if c == nil {
		conn, err = net.Dial("tcp", addr)
	} else {
		d := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: c}
		conn, err = d.DialContext(s.t.Context(), "tcp", addr)
	}
	if err != nil {
		return nil
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
	conn.Write(b)
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.CloseWrite()
	}
	answer, _ := io.ReadAll(io.LimitReader(conn, 1<<20))
	return answer
}

// certificates are the TLS of those who are no node of this cluster, by what they are.
func (s *strangers) certificates(protocol string) map[string]*tls.Config {
	master, err := crypto.MasterKeyFromEnv(
		"imgcluster-master-key-v1 f5fac8af2578f500 t07xfydFS4K+p5aN+DoOfwMzq1jI34v53IKaZ6+7L+U=")
	if err != nil {
		s.t.Fatal(err)
	}
	foreign, err := access.NewAuthority(master, s.c.Config.Cluster.Name)
	if err != nil {
		s.t.Fatal(err)
	}
	own := s.c.Authority(s.t)
	with := func(get func() (*tls.Certificate, error)) *tls.Config {
		c := own.PeerClient(nil, 1, protocol)
		c.VerifyConnection = nil
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return get() }
		return c
	}
	return map[string]*tls.Config{
		"nobody":                 with(func() (*tls.Certificate, error) { return &tls.Certificate{}, nil }),
		"another cluster's node": with(foreign.Node(2, "127.0.0.1").Get),
		"the administrator":      with(own.Admin().Get),
		"an operator":            with(func() (*tls.Certificate, error) { return operator() }),
	}
}

// operator returns a certificate such as an operator may have for api_port, which nobody here has signed.
func operator() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// join is a request that would have a node's replicas given up: it has all that hello tells of the node, and
// another incarnation.
func (s *strangers) join(node image.NodeID) []byte {
	j := catalog.Join{
		Node: node, Cluster: s.c.Config.Cluster.Name, KeyID: s.hello.KeyIDs[0], Members: s.hello.Members,
		Incarnation: "a000000000000000000000000000000a", Starts: 1, Run: "forged", Replace: true,
	}
	for shard := range uint64(s.c.Config.Cluster.DataShards) {
		j.Shards = append(j.Shards, shard+2)
	}
	return mustJSON(s.t, j)
}

// foreigners speak TLS, and are no nodes of this cluster.
func (s *strangers) foreigners(addr string) {
	m := s.batch(3, 1, func(m *raftpb.Message) { m.To = 0 })
	bad := frame(frameBatch, marshal(s.t, &m))
	requests := []string{"GET " + wire.StatusPath + " HTTP/1.1\r\nHost: node-1\r\n\r\n"}
	for node := image.NodeID(2); node <= 3; node++ {
		body := s.join(node)
		requests = append(requests, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: node-1\r\n"+
			"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", wire.JoinPath, len(body), body))
	}
	for range s.times {
		for who, c := range s.certificates(access.ProtocolRaft) {
			s.refusedSession(addr, c)
			if answer := s.talk(addr, c, bad); len(answer) > 0 {
				s.t.Errorf("%s is answered %q at %s", who, answer, addr)
			}
		}
		for who, c := range s.certificates(access.ProtocolHTTP) {
			for _, request := range requests {
				if answer := s.talk(addr, c, []byte(request)); len(answer) > 0 {
					s.t.Errorf("%s is answered %q at %s", who, answer, addr)
				}
			}
		}
	}
}

// refusedSession sends a datagram under the keys of a connection that was refused: on the client's side the
// handshake is complete before the node has looked at the certificate.
func (s *strangers) refusedSession(addr string, c *tls.Config) {
	d := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: c}
	conn, err := d.DialContext(s.t.Context(), "tcp", addr)
	if err != nil {
		return
	}
	defer conn.Close()
	to, err := net.Dial("udp", addr)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer to.Close()
	state := conn.(*tls.Conn).ConnectionState()
	for _, m := range s.messages(3, 1) {
		to.Write(sealed(s.t, state, marshal(s.t, &m)))
	}
}

// clients use the clients' port for what is for nodes.
func (s *strangers) clients(id image.NodeID) {
	asJSON := http.Header{"Content-Type": {"application/json"}}
	for _, x := range []struct {
		method, path string
		body         []byte
	}{
		{http.MethodPost, wire.JoinPath, s.join(2)},
		{http.MethodPost, wire.JoinPath, s.join(3)},
		{http.MethodPost, wire.HelloPath, mustJSON(s.t, s.hello)},
		{http.MethodPost, wire.SuspectPath + "?user=alice&name=0.png", nil},
		{http.MethodGet, wire.StatusPath, nil},
		{http.MethodGet, wire.ShardListPath + "?user=alice&shards=2", nil},
		{http.MethodGet, "/internal/v1/copies/" + image.NewID().String(), nil},
	} {
		if r := s.c.Do(x.method, id, x.path, bytes.NewReader(x.body), asJSON); r.Status != http.StatusNotFound {
			s.t.Errorf("%s %s as a client: %d %s", x.method, x.path, r.Status, r.Body)
		}
	}
	// What only nodes may say counts for nothing: no node assigned this upload, so that it would wait for one.
	body := clustertest.Image(1, 20_000)
	for _, field := range []string{"Imgcluster-Relayed", "Imgcluster-Forwarded"} {
		path := clustertest.Path("stranger", fmt.Sprintf("%s-%d.png", strings.ToLower(field), id))
		r := s.c.DoAgain(s.t, http.MethodPut, id, path, body, http.Header{field: {"true"}})
		clustertest.Receipt(s.t, r)
	}
}

// impostors have the certificate of a node, and say that they are another one.
func (s *strangers) impostors(id image.NodeID) {
	as := id%3 + 1
	claimed := as%3 + 1
	asJSON := http.Header{"Content-Type": {"application/json"}}
	hello := s.hello
	hello.Node = claimed
	forged := map[string][]byte{wire.JoinPath: s.join(claimed), wire.HelloPath: mustJSON(s.t, hello)}
	for path, body := range forged {
		r := s.c.DoAs(s.t, as, http.MethodPost, id, path, body, asJSON)
		if clustertest.ExpectProblem(s.t, r, image.KindForbidden); r.Problem.Hint == "" {
			s.t.Errorf("%s: %s", path, r.Body)
		}
	}
	frames := [][]byte{frame(frameBatch, []byte("\xff\xff")), frame(7, nil), []byte("GET / HTTP/1.1\r\n\r\n")}
	for _, m := range s.messages(claimed, id) {
		frames = append(frames, frame(frameBatch, marshal(s.t, &m)))
		m.SourceAddress = s.c.RaftAddr(as)
		frames = append(frames, frame(frameBatch, marshal(s.t, &m)))
	}
	// What it may say is its own, but of a type that no node sends.
	for _, kind := range []raftpb.MessageType{
		raftpb.LocalTick, raftpb.Election, raftpb.LeaderHeartbeat, raftpb.ConfigChangeEvent, raftpb.SnapshotStatus,
		raftpb.Unreachable, raftpb.CheckQuorum, raftpb.InstallSnapshot, raftpb.LogQuery, 29, -1,
	} {
		m := s.batch(as, id, func(m *raftpb.Message) { m.Type, m.Term = kind, 0 })
		frames = append(frames, frame(frameBatch, marshal(s.t, &m)))
	}
	for _, path := range []string{"../../../node.json", ".", "..", "/", "snapshot-0000000000000001.gbsnap/.."} {
		chunk := raftpb.Chunk{
			DeploymentId: s.deployment, BinVer: raftio.TransportBinVersion, ShardID: 1, ReplicaID: uint64(id),
			From: uint64(as), Index: 1, Term: 1, Filepath: path, ChunkCount: 1, Data: []byte("x"),
		}
		frames = append(frames, frame(frameSnapshot, marshal(s.t, &chunk)))
		chunk.From = uint64(claimed)
		frames = append(frames, frame(frameSnapshot, marshal(s.t, &chunk)))
	}
	for _, b := range frames {
		s.impostor(as, id, b, false)
	}
	random := s.random()
	for i := range s.times * strangerFrames / 3 { // most of them with a checksum that is not right
		s.impostor(as, id, mutate(random, frames[i%len(frames)]), true)
	}
	nobody := s.batch(as, id, func(m *raftpb.Message) { m.To = 0 }) // which may be a replica of before
	s.impostor(as, id, frame(frameBatch, marshal(s.t, &nobody)), true)
}

// impostor sends bytes as Raft's, to their end or as if more came, and expects the other end to close the
// connection.
func (s *strangers) impostor(as, to image.NodeID, b []byte, end bool) {
	conn, err := s.c.DialAs(s.t, as, to, access.ProtocolRaft)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil { // Raft's greeting
		s.t.Errorf("node %d as node %d: %v", as, to, err)
		return
	}
	conn.Write(b)
	if end {
		conn.(*tls.Conn).CloseWrite()
	}
	if n, err := conn.Read(make([]byte, 1)); n > 0 || os.IsTimeout(err) {
		s.t.Errorf("node %d is not sent away by node %d: %v", as, to, err)
	}
}

// sealed returns a datagram under the keys of a connection, as the package raftnet makes them.
func sealed(t *testing.T, state tls.ConnectionState, message []byte) []byte {
	secret, err := state.ExportKeyingMaterial("EXPORTER-imgcluster-raft-datagram", nil, 8+32)
	if err != nil {
		t.Error(err)
		return nil
	}
	block, err := aes.NewCipher(secret[8:])
	if err != nil {
		t.Error(err)
		return nil
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Error(err)
		return nil
	}
	head := binary.BigEndian.AppendUint64(secret[:8:8], 1)
	nonce := append(make([]byte, 4), head[8:]...)
	return aead.Seal(head, nonce, message, head)
}
