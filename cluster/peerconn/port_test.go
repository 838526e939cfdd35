package peerconn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"imgcluster/cluster/access"
	"imgcluster/cluster/clustertest/poll"
	"imgcluster/cluster/connlimit"
	"imgcluster/cluster/image"
	"imgcluster/crypto"
)

// credentials are those of a node of a cluster of this name.
func credentials(t testing.TB, cluster string, id image.NodeID) Credentials {
	t.Helper()
	master, err := crypto.MasterKeyFromEnv(
		"imgcluster-master-key-v1 f5fac8af2578f500 t07xfydFS4K+p5aN+DoOfwMzq1jI34v53IKaZ6+7L+U=")
	if err != nil {
		t.Fatal(err)
	}
	a, err := access.NewAuthority(master, cluster)
	if err != nil {
		t.Fatal(err)
	}
	return Credentials{a, a.Node(id, "127.0.0.1")}
}

// open opens the port of node 1.
func open(t *testing.T) (*Port, *observer.ObservedLogs) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	core, log := observer.New(zapcore.WarnLevel)
	p := New(l, credentials(t, "test", 1), zap.New(core))
	p.Start()
	t.Cleanup(func() { p.Close() })
	return p, log
}

// dialer is that of a node.
func dialer(t *testing.T, as image.NodeID, protocol string) *Dialer {
	return &Dialer{credentials(t, "test", as), protocol, 5 * time.Second, 5 * time.Second}
}

func dial(t *testing.T, p *Port, as image.NodeID, protocol string) net.Conn {
	t.Helper()
	conn, err := dialer(t, as, protocol).Dial(t.Context(), 1, p.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// accept expects a connection of a node, and that what it sends arrives.
func accept(t *testing.T, l net.Listener, from image.NodeID, its net.Conn) *tls.Conn {
	t.Helper()
	got, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn := got.(*tls.Conn)
	t.Cleanup(func() { conn.Close() })
	if node, ok := access.PeerOf(conn.ConnectionState()); node != from || !ok {
		t.Errorf("the connection is of node %d, %v", node, ok)
	}
	if _, err := io.WriteString(its, "x"); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(io.LimitReader(conn, 1)); string(b) != "x" {
		t.Errorf("got %q, %v", b, err)
	}
	return conn
}

// expectClosed expects that a connection is closed, without a byte for whoever has made it.
func expectClosed(t *testing.T, conn net.Conn) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	n, err := conn.Read(make([]byte, 1))
	if n > 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// TestRefusedSaysWhatToDo: what is logged of a node that is refused, or refuses this one, has a next step.
func TestRefusedSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for what, tc := range map[string]struct {
		connect func(t *testing.T, p *Port)
		hint    string
	}{
		"no TLS, as before this version": {func(t *testing.T, p *Port) {
			conn, err := net.Dial("tcp", p.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			io.WriteString(conn, "\xae\x7d and so on, a header of Raft's")
			io.Copy(io.Discard, conn)
		}, "run the same version of imgcluster on all of them"},
		"a node of another cluster": {func(t *testing.T, p *Port) {
			d := &Dialer{credentials(t, "other", 2), access.ProtocolRaft, 5 * time.Second, 5 * time.Second}
			if conn, err := d.Dial(t.Context(), 1, p.Addr().String()); err == nil {
				conn.Close()
				t.Error("it is taken for a node of the cluster")
			}
		}, "compare cluster.name and the master keys"},
	} {
		t.Run(what, func(t *testing.T) {
			p, log := open(t)
			tc.connect(t, p)
			poll.Until(t, time.Minute, "it is logged", func() bool { return log.Len() > 0 })
			if hint, _ := log.All()[0].ContextMap()["hint"].(string); !strings.Contains(hint, tc.hint) {
				t.Errorf("logged: %+v", log.All())
			}
		})
	}
}

func TestProtocols(t *testing.T) {
	p, log := open(t)
	raft := p.Listen(access.ProtocolRaft, 2)
	web := p.Listen(access.ProtocolHTTP, 2)
	accept(t, raft, 2, dial(t, p, 2, access.ProtocolRaft))
	accept(t, web, 2, dial(t, p, 2, access.ProtocolHTTP))
	last := accept(t, raft, 2, dial(t, p, 2, access.ProtocolRaft))
	expectClosed(t, dial(t, p, 2, access.ProtocolRaft)) // more than two
	poll.Until(t, time.Minute, "it is logged",
		func() bool { return log.FilterField(zap.Int("refused", 1)).Len() == 1 })
	accept(t, raft, 3, dial(t, p, 3, access.ProtocolRaft))
	last.Close()
	accept(t, raft, 2, dial(t, p, 2, access.ProtocolRaft))

	raft.Close()
	expectClosed(t, dial(t, p, 3, access.ProtocolRaft)) // nobody listens
	if _, err := raft.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	again := p.Listen(access.ProtocolRaft, 2)
	raft.Close() // which is not the listener any more
	accept(t, again, 3, dial(t, p, 3, access.ProtocolRaft))
	waiting := dial(t, p, 3, access.ProtocolRaft) // and is not accepted
	p.Close()
	expectClosed(t, waiting)
	if _, err := again.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// TestStrangers: who is no node of this cluster, or does not speak a protocol of the nodes, is not handed on,
// and the log has why, though not for each.
func TestStrangers(t *testing.T) {
	p, log := open(t)
	protocols := []string{access.ProtocolRaft, access.ProtocolHTTP}
	handed := make(chan net.Conn)
	for _, protocol := range protocols {
		l := p.Listen(protocol, 100)
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				handed <- conn
			}
		}()
	}
	node := credentials(t, "test", 2)
	client := func(own *access.Certificate, change func(*tls.Config)) *tls.Config {
		c := node.Authority.PeerClient(own, 1, access.ProtocolRaft)
		change(c)
		return c
	}
	keep := func(*tls.Config) {}
	configs := map[string]*tls.Config{
		"no certificate": client(node.Own, func(c *tls.Config) { c.GetClientCertificate = nil }),
		"administrator":  client(node.Authority.Admin(), keep),
		"other cluster":  client(credentials(t, "other", 2).Own, keep),
		"self-signed": client(node.Own, func(c *tls.Config) {
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return selfSigned(t, node.Own), nil
			}
		}),
		"stolen": client(node.Own, func(c *tls.Config) { // a certificate without its key
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				cert, err := node.Own.Get()
				return &tls.Certificate{
					Certificate: cert.Certificate, PrivateKey: selfSigned(t, node.Own).PrivateKey,
				}, err
			}
		}),
		"TLS 1.2": client(node.Own, func(c *tls.Config) {
			c.MinVersion, c.MaxVersion = 0, tls.VersionTLS12
		}),
		"no protocol":      client(node.Own, func(c *tls.Config) { c.NextProtos = nil }),
		"another protocol": client(node.Own, func(c *tls.Config) { c.NextProtos = []string{"h2"} }),
	}
	for what, config := range configs {
		config.VerifyConnection = nil
		t.Run(what, func(t *testing.T) {
			conn, err := tls.Dial("tcp", p.Addr().String(), config)
			if err == nil {
				defer conn.Close()
				expectClosed(t, conn)
			}
		})
	}
	for _, garbage := range []string{"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\xff\xff\x01", "\x00"} {
		conn, err := net.Dial("tcp", p.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, garbage); err != nil {
			t.Fatal(err)
		}
		conn.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, conn) // at most an alert
		conn.Close()
	}
	select {
	case conn := <-handed:
		t.Errorf("a stranger's connection was handed on: %+v", conn.(*tls.Conn).ConnectionState())
	default:
	}
	its := dial(t, p, 2, access.ProtocolHTTP)
	if conn := <-handed; conn.RemoteAddr().String() != its.LocalAddr().String() {
		t.Error("a node's connection was not handed on after them")
	}
	if log.Len() != 1 {
		t.Errorf("log: %+v", log.All())
	}
}

// selfSigned returns a certificate that says the same as a node's, and that nobody else has signed.
func selfSigned(t *testing.T, of *access.Certificate) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := of.Get()
	if err != nil {
		t.Fatal(err)
	}
	template := *cert.Leaf
	template.SerialNumber, template.PublicKey = big.NewInt(1), key.Public()
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestCrowd opens more connections than there may be without a certificate; a node from another address still
// gets through.
func TestCrowd(t *testing.T) {
	p, _ := open(t)
	l := p.Listen(access.ProtocolRaft, 10)
	var crowd []net.Conn
	defer func() {
		for _, conn := range crowd {
			conn.Close()
		}
	}()
	for range handshakesMax + 20 {
		conn, err := net.Dial("tcp", p.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		crowd = append(crowd, conn)
	}
	count := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.waiting.count
	}
	poll.Until(t, time.Minute, "the crowd to be there", func() bool { return count() == handshakesMax })
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	var conn *tls.Conn
	poll.Until(t, time.Minute, "the node to get through", func() bool {
		raw, err := d.DialContext(t.Context(), "tcp", p.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		own := credentials(t, "test", 2)
		conn = tls.Client(raw, own.Authority.PeerClient(own.Own, 1, access.ProtocolRaft))
		return conn.HandshakeContext(t.Context()) == nil
	})
	defer conn.Close()
	accept(t, l, 2, conn)
	poll.Until(t, time.Minute, "the crowd to be gone", func() bool { return count() == 0 })
}

// fakeConn is a connection of which only that it is closed matters.
type fakeConn struct {
	net.Conn
	from   net.Addr
	closed bool
}

func (c *fakeConn) Close() error         { c.closed = true; return nil }
func (c *fakeConn) RemoteAddr() net.Addr { return c.from }

func TestHandshakes(t *testing.T) {
	s := newHandshakes()
	add := func(from string, age time.Duration) *handshake {
		addr := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))
		conn := &fakeConn{from: addr}
		network := connlimit.Address(conn.RemoteAddr().String())
		h := &handshake{conn: conn, from: network, since: time.Now().Add(-age)}
		if s.add(h) {
			return h
		}
		return nil
	}
	closed := func(h *handshake) bool { return h.conn.(*fakeConn).closed }
	first := add("10.0.0.1:1", time.Hour)
	var crowd []*handshake
	for s.count < handshakesMax { // one /64 counts as one address
		crowd = append(crowd, add("[2001:db8::1]:1", time.Minute), add("[2001:db8::2]:1", time.Minute))
		if s.count == handshakesMax-1 {
			crowd = append(crowd, add("[2001:db8::3%eth0]:1", time.Minute))
		}
	}
	if add("10.0.0.2:1", 0) == nil || !closed(crowd[0]) || closed(crowd[1]) || closed(first) {
		t.Error("a new network does not take the place of the crowd's oldest")
	}
	s.know(2, crowd[0].from)
	if add("10.0.0.3:1", 0) == nil || !closed(first) || closed(crowd[1]) {
		t.Error("a stranger takes a place of a node's network, and not another stranger's")
	}
	if add("10.0.0.4:1", 0) != nil {
		t.Error("a stranger takes a place that was only just taken, or a node's")
	}
	if add("[2001:db8::4]:1", 0) != nil {
		t.Error("a node takes a place that a stranger has only just taken")
	}
	for _, l := range s.from { // all have been there for a while
		for at := l.Front(); at != nil; at = at.Next() {
			at.Value.(*handshake).since = time.Now().Add(-time.Minute)
		}
	}
	if add("[2001:db8::4]:1", 0) == nil || s.from[first.from] != nil {
		t.Error("a node does not take a stranger's place")
	}
	for _, h := range crowd {
		s.remove(h)
		s.remove(h)
	}
	if s.count > 5 || s.count < 1 {
		t.Errorf("%d are left", s.count)
	}
	s.closeAll()
	for _, l := range s.from {
		if !closed(l.Front().Value.(*handshake)) {
			t.Error("one is not closed")
		}
	}
}

// TestServer: requests of another node are answered, and one that hangs does not hold up a shutdown for
// longer than that may take.
func TestServer(t *testing.T) {
	p, _ := open(t)
	entered := make(chan struct{})
	leave := make(chan struct{})
	defer close(leave)
	s := p.Serve(&http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			close(entered)
			w.(http.Flusher).Flush()
			for _, err := w.Write(make([]byte, 1<<20)); err == nil; { // until the connection is closed
				_, err = w.Write(make([]byte, 1<<20))
			}
			return
		}
		node, _ := access.PeerOf(*r.TLS)
		if node != 2 {
			t.Errorf("the request is of node %d", node)
		}
		io.WriteString(w, "hello")
	})}, 10)
	d := dialer(t, 2, access.ProtocolHTTP)
	transport := &http.Transport{DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.Dial(ctx, 1, p.Addr().String())
	}}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport}
	resp, err := c.Get("https://node/")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); string(b) != "hello" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	resp.Body.Close()
	resp, err = c.Get("https://node/hang")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 3*time.Second { // TLS alone would wait for five
		t.Errorf("it took %v", took)
	}
}

// TestDial: whom a node does not find at the other end, and how it learns that.
func TestDial(t *testing.T) {
	p, _ := open(t)
	p.Listen(access.ProtocolRaft, 1)
	d := dialer(t, 2, access.ProtocolRaft)
	if _, err := d.Dial(t.Context(), 3, p.Addr().String()); !errors.Is(err, access.ErrIdentity) {
		t.Errorf("node 1 in place of node 3: %v", err)
	}
	d.Credentials = credentials(t, "other", 2)
	if _, err := d.Dial(t.Context(), 1, p.Addr().String()); !errors.Is(err, access.ErrForeign) {
		t.Errorf("another cluster's node 1: %v", err)
	}
	d = dialer(t, 2, "imgcluster-raft/2")
	if _, err := d.Dial(t.Context(), 1, p.Addr().String()); err == nil {
		t.Error("a protocol that is not spoken there")
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	d.Timeout = 50 * time.Millisecond
	if _, err := d.Dial(t.Context(), 1, silent.Addr().String()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody shakes hands: %v", err)
	}
}
