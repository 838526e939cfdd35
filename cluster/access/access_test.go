package access

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"math/big"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/crypto"
)

var update = flag.Bool("update", false, "remake the golden files")

// Two master keys, made once by CreateMasterKey.
const (
	lineOne = "imgcluster-master-key-v1 f5fac8af2578f500 t07xfydFS4K+p5aN+DoOfwMzq1jI34v53IKaZ6+7L+U="
	lineTwo = "imgcluster-master-key-v1 dd59aaed7bc449db IeCf6/S+Z6ZSgit6+dEaQUefYj4XWmp2OGB4CmBRLfI="
)

func authorityOf(t *testing.T, line, cluster string) *Authority {
	t.Helper()
	master, err := crypto.MasterKeyFromEnv(line)
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewAuthority(master, cluster)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// issuerOf returns the issuer that signs.
func issuerOf(t *testing.T, a *Authority) *issuer {
	t.Helper()
	signs, err := a.issuers.First()
	if err != nil {
		t.Fatal(err)
	}
	return signs
}

// TestAuthorityIsTheSameEverywhere compares ca.crt with the one that was made when this test was written: a
// node of another build must make the same.
func TestAuthorityIsTheSameEverywhere(t *testing.T) {
	const golden = "testdata/ca.crt"
	got := authorityOf(t, lineOne, "photos").CertificatePEM()
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("ca.crt is not the one in %s (-update remakes it): %v\n%s", golden, err, got)
	}
	for what, other := range map[string]*Authority{
		"another master key": authorityOf(t, lineTwo, "photos"),
		"another name":       authorityOf(t, lineOne, "photos2"),
	} {
		if bytes.Equal(other.CertificatePEM(), got) {
			t.Errorf("%s gives the same authority", what)
		}
	}
}

// TestScalar: where HKDF gives what is no private key, the next counter's is taken.
func TestScalar(t *testing.T) {
	order := elliptic.P256().Params().N.FillBytes(make([]byte, scalarBytes))
	one := append(make([]byte, scalarBytes-1), 1)
	var asked []string
	given := [][]byte{make([]byte, scalarBytes), order, bytes.Clone(one)}
	key, err := deriveScalar(func(purpose string, n int) ([]byte, error) {
		asked = append(asked, purpose)
		return given[len(asked)-1], nil
	}, "test")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := key.Bytes(); err != nil || !bytes.Equal(got, one) {
		t.Errorf("the key is %x, %v", got, err)
	}
	if !slices.Equal(asked, []string{"test 0", "test 1", "test 2"}) {
		t.Errorf("asked for %q", asked)
	}
	_, err = deriveScalar(func(string, int) ([]byte, error) { return make([]byte, scalarBytes), nil }, "test")
	if err == nil {
		t.Error("zero is taken for a private key")
	}
}

// TestClientsTrust has a client that trusts ca.crt alone verify a node's certificate by host names,
// addresses and dates, as any TLS client does.
func TestClientsTrust(t *testing.T) {
	a := authorityOf(t, lineOne, "a name with spaces, /slashes/ and ümlauts")
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(a.CertificatePEM()) {
		t.Fatal("ca.crt is not PEM")
	}
	c, err := a.Node(7, "10.40.45.206", "photos.example", "fd00::1").Get()
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"10.40.45.206", "photos.example", "fd00::1"} {
		if _, err := c.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if _, err := c.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "10.40.45.207"}); err == nil {
		t.Error("it is taken for another host's")
	}
	later := time.Now().Add(2 * 24 * time.Hour)
	if _, err := c.Leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: later}); err == nil {
		t.Error("it is valid two days later")
	}
	if bytes.Contains(a.CertificatePEM(), []byte("PRIVATE")) {
		t.Error("ca.crt has a private key")
	}
}

// TestRenewed: a certificate is signed again long before it ends.
func TestRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := authorityOf(t, lineOne, "photos").Node(1, "127.0.0.1")
		first, err := node.Get()
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			time.Sleep(certificateRenew / 2)
			c, err := node.Get()
			if err != nil || time.Until(c.Leaf.NotAfter) < certificateLife-certificateRenew {
				t.Errorf("it ends at %v: %v", c.Leaf.NotAfter, err)
			}
		}
		if last, _ := node.Get(); last == first {
			t.Error("it was not signed again")
		}
	})
}

// handshake connects two sides and returns their states and errors.
func handshake(
	t *testing.T, server, client *tls.Config,
) (s, c tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const limit = 10 * time.Second
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			serverErr = err
			return
		}
		conn.SetDeadline(time.Now().Add(limit))
		side := tls.Server(conn, server)
		defer side.Close()
		if serverErr = side.Handshake(); serverErr == nil {
			s = side.ConnectionState()
			_, serverErr = side.Write([]byte("x"))
		}
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(limit))
	side := tls.Client(conn, client)
	defer side.Close()
	if clientErr = side.Handshake(); clientErr == nil {
		c = side.ConnectionState()
		_, clientErr = side.Read(make([]byte, 1)) // in TLS 1.3 the server's refusal comes here
	}
	<-done
	return s, c, serverErr, clientErr
}

type signer func(template *x509.Certificate, key *ecdsa.PrivateKey) ([]byte, error)

// forged returns a certificate that names an identity, signed by a key of its own or by sign.
func forged(t *testing.T, i Identity, sign signer) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		URIs:        []*url.URL{i.uri()},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if sign == nil {
		sign = func(c *x509.Certificate, key *ecdsa.PrivateKey) ([]byte, error) {
			return x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
		}
	}
	der, err := sign(template, key)
	if err != nil {
		t.Fatal(err)
	}
	own := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{ProtocolRaft}, InsecureSkipVerify: true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil },
	}
}

// TestPeers connects every kind of client to a node's port for other nodes.
func TestPeers(t *testing.T) {
	a := authorityOf(t, lineOne, "photos")
	other := authorityOf(t, lineTwo, "photos")
	renamed := authorityOf(t, lineOne, "photos2")
	one, two := a.Node(1, "127.0.0.1"), a.Node(2, "127.0.0.1")
	server := a.PeerServer(one)

	s, c, serverErr, clientErr := handshake(t, server, a.PeerClient(two, 1, ProtocolRaft))
	if serverErr != nil || clientErr != nil {
		t.Fatal(serverErr, clientErr)
	}
	if from, ok := PeerOf(s); from != 2 || !ok {
		t.Errorf("the server takes its peer for %d", from)
	}
	if to, ok := PeerOf(c); to != 1 || !ok || c.NegotiatedProtocol != ProtocolRaft {
		t.Errorf("the client takes its peer for %d, speaks %q", to, c.NegotiatedProtocol)
	}

	old := a.PeerClient(two, 1, ProtocolHTTP)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	leaf, err := a.Node(2, "127.0.0.1").Get()
	if err != nil {
		t.Fatal(err)
	}
	byNode := func(template *x509.Certificate, key *ecdsa.PrivateKey) ([]byte, error) {
		return x509.CreateCertificate(rand.Reader, template, leaf.Leaf, key.Public(), leaf.PrivateKey)
	}
	withURIs := func(uris ...*url.URL) signer {
		return func(template *x509.Certificate, key *ecdsa.PrivateKey) ([]byte, error) {
			template.URIs = uris
			i := issuerOf(t, a)
			return x509.CreateCertificate(rand.Reader, template, i.certificate, key.Public(), i.key)
		}
	}
	node2 := Identity{"photos", 2}
	clients := map[string]*tls.Config{
		"no certificate":               Client(nil, nil),
		"the administrator":            Client(nil, a.Admin()),
		"a node of another master key": other.PeerClient(other.Node(2, "127.0.0.1"), 1, ProtocolRaft),
		"a node of a cluster renamed":  renamed.PeerClient(renamed.Node(2, "127.0.0.1"), 1, ProtocolRaft),
		"TLS 1.2":                      old,
		"an unknown protocol":          a.PeerClient(two, 1, "h2"),
		"signed by itself":             forged(t, node2, nil),
		"signed by a node":             forged(t, node2, byNode),
		"two identities":               forged(t, node2, withURIs(node2.uri(), Identity{"photos", 3}.uri())),
		"no identity":                  forged(t, node2, withURIs()),
	}
	for what, client := range clients {
		client.InsecureSkipVerify = true // it does not mind who answers
		client.VerifyConnection = nil
		if s, _, serverErr, _ := handshake(t, server, client); serverErr == nil || s.HandshakeComplete {
			t.Errorf("%s: taken for a node", what)
		}
	}

	// And the other way round: who answers in a node's place.
	for what, answers := range map[string]*Certificate{
		"another node":      two,
		"another cluster's": other.Node(1, "127.0.0.1"),
	} {
		server := &tls.Config{
			NextProtos: []string{ProtocolRaft}, ClientAuth: tls.RequestClientCert,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return answers.Get() },
		}
		_, _, _, err := handshake(t, server, a.PeerClient(two, 1, ProtocolRaft))
		var refused *CertificateError
		if !errors.As(err, &refused) || refused.Hint() == "" {
			t.Errorf("%s answers: %v", what, err)
		}
	}
}

// TestClocks: nodes whose clocks are years apart work together; a client is told that it is the clock.
func TestClocks(t *testing.T) {
	a := authorityOf(t, lineOne, "photos")
	for _, off := range []time.Duration{-60 * 365 * 24 * time.Hour, 60 * 365 * 24 * time.Hour} {
		node := a.Node(2, "127.0.0.1")
		i := issuerOf(t, a)
		c, err := node.sign(i, time.Now().Add(off))
		if err != nil {
			t.Fatal(err)
		}
		node.current = map[*issuer]*signed{i: {certificate: c, at: time.Now()}}
		server := a.PeerServer(a.Node(1, "127.0.0.1"))
		_, _, serverErr, clientErr := handshake(t, server, a.PeerClient(node, 1, ProtocolRaft))
		if serverErr != nil || clientErr != nil {
			t.Errorf("%v apart: %v, %v", off, serverErr, clientErr)
		}
	}
	admin := a.Admin()
	state := &tls.ConnectionState{}
	for _, off := range []time.Duration{0, 2 * 24 * time.Hour, -2 * 24 * time.Hour} {
		c, err := admin.sign(issuerOf(t, a), time.Now().Add(off))
		if err != nil {
			t.Fatal(err)
		}
		state.PeerCertificates = []*x509.Certificate{c.Leaf}
		i, err := a.Identify(state)
		if (err == nil) != (off == 0) || i == nil || *i != (Identity{"photos", 0}) {
			t.Errorf("%v apart: %v, %v", off, i, err)
		}
		if err != nil && (!errors.Is(err, ErrDates) || !strings.Contains(err.Error(), "differ by about 48h")) {
			t.Errorf("%v apart: %v", off, err)
		}
	}
}

// TestIdentify: a certificate that is not the cluster's names nobody. It is an error when it is an
// administrator's or a node's of another cluster or master key: its holder takes this cluster for that.
func TestIdentify(t *testing.T) {
	a := authorityOf(t, lineOne, "photos")
	foreign, err := authorityOf(t, lineTwo, "photos").Admin().Get()
	if err != nil {
		t.Fatal(err)
	}
	for what, s := range map[string]*tls.ConnectionState{
		"plain HTTP":     nil,
		"no certificate": {},
		"the authority":  {PeerCertificates: []*x509.Certificate{issuerOf(t, a).certificate}},
	} {
		if i, err := a.Identify(s); i != nil || err != nil {
			t.Errorf("%s: %v, %v", what, i, err)
		}
	}
	i, err := a.Identify(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{foreign.Leaf}})
	if i != nil || !errors.Is(err, ErrForeign) || image.HintOf(err) == "" ||
		!strings.Contains(err.Error(), "is not of the cluster photos with this master key") {
		t.Errorf("foreign: %v, %v", i, err)
	}
	if block, rest := pem.Decode(a.CertificatePEM()); block == nil || len(rest) > 0 {
		t.Error("ca.crt is not one PEM block")
	}
	if _, ok := PeerOf(tls.ConnectionState{HandshakeComplete: true}); ok {
		t.Error("who has no certificate is a node")
	}
}

// FuzzIdentity: only what uri makes is read, and it is read back.
func FuzzIdentity(f *testing.F) {
	f.Add("imgcluster:///photos/node/1")
	f.Add("imgcluster:///photos/admin")
	f.Add("imgcluster://photos/node/1")
	f.Add("imgcluster:///photos/node/01")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := url.Parse(text)
		if err != nil {
			return
		}
		i, ok := identityOf(&x509.Certificate{URIs: []*url.URL{u}})
		if ok && (i.uri().String() != u.String() || i.Node == 0 && !strings.HasSuffix(text, "/admin")) {
			t.Errorf("%q is %v", text, i)
		}
	})
}

// TestExplain has clients meet servers that they must not trust: each learns why, and what to do.
func TestExplain(t *testing.T) {
	a := authorityOf(t, lineOne, "photos")
	other := authorityOf(t, lineTwo, "photos")
	roots, err := a.pool()
	if err != nil {
		t.Fatal(err)
	}
	at := func(c *Certificate, off time.Duration) *tls.Certificate {
		signed, err := c.sign(issuerOf(t, c.authority), time.Now().Add(off))
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	const days = 24 * time.Hour
	const clocks = "clocks of this host and of node 1 of photos differ by about 48h"
	one, two := a.Node(1, "node1"), a.Node(2, "node2")
	foreign := other.Node(1, "node1")
	for _, tc := range []struct {
		what   string
		serves *tls.Certificate
		reason error
		text   string
	}{
		{"a node", at(one, 0), nil, ""},
		{"a node whose clock is half a day off", at(one, 11*time.Hour), nil, ""},
		{"another cluster", at(foreign, 0), ErrForeign, "not from an authority that is trusted here"},
		{"another cluster of another time", at(foreign, 9*days), ErrForeign, "not from an authority"},
		{"another node", at(two, 0), ErrIdentity, `not for the host "node1"`},
		{"a slow clock there", at(one, -2*days), ErrDates, clocks},
		{"a fast clock there", at(one, 2*days), ErrDates, clocks},
		{"no node", at(a.Admin(), 0), ErrIdentity, "administrator"},
	} {
		server := a.ClientServer(func() (*tls.Certificate, error) { return tc.serves, nil })
		client := Client(roots, nil)
		client.ServerName = "node1"
		_, _, _, err := handshake(t, server, client)
		if err = Explain(err, roots); tc.reason == nil {
			if err != nil {
				t.Errorf("%s: %v", tc.what, err)
			}
			continue
		}
		var bad *CertificateError
		if !errors.As(err, &bad) || !errors.Is(err, tc.reason) || !strings.Contains(err.Error(), tc.text) ||
			bad.Hint() == "" {
			t.Errorf("%s: %v", tc.what, err)
		}
	}
	if err := errors.New("x"); Explain(err, roots) != err {
		t.Error("another error is explained")
	}
}

// TestExplainOwn: a certificate of the operator's that is out of date says so, not that a clock is wrong.
func TestExplainOwn(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"photos.example"},
		Subject:   pkix.Name{CommonName: "photos.example"},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	server := authorityOf(t, lineOne, "photos").ClientServer(func() (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
	})
	client := Client(roots, nil)
	client.ServerName = "photos.example"
	_, _, _, err = handshake(t, server, client)
	err = Explain(err, roots)
	if !errors.Is(err, ErrDates) || !strings.Contains(err.Error(), `"photos.example" is valid from`) {
		t.Error(err)
	}
}

// BenchmarkIdentify is what each request of an administrator costs.
func BenchmarkIdentify(b *testing.B) {
	master, err := crypto.MasterKeyFromEnv(lineOne)
	if err != nil {
		b.Fatal(err)
	}
	a, err := NewAuthority(master, "photos")
	if err != nil {
		b.Fatal(err)
	}
	c, err := a.Admin().Get()
	if err != nil {
		b.Fatal(err)
	}
	state := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c.Leaf}}
	for b.Loop() {
		if i, err := a.Identify(state); i == nil || err != nil {
			b.Fatal(i, err)
		}
	}
}
