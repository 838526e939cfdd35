package cluster_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imgcluster/cluster/access"
	"imgcluster/cluster/api"
	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/crypto"
)

// visitTime bounds one exchange of a visitor.
const visitTime = 10 * time.Second

// visitor is whoever is on the network and calls on the clients' port, without the master key.
type visitor struct {
	t *testing.T
	c *clustertest.Cluster
	// certificates are those that a stranger has, nil for none, by what they are.
	certificates map[string]*tls.Certificate
	// senders are the values of Authorization that a stranger has; mallory is that of another user's key.
	senders map[string]string
	mallory string
	aliceID string // ID of an access key of alice

	address atomic.Uint32 // last one used, of 127.77.0.0/16
	clients []*http.Client
}

func newVisitor(t *testing.T, c *clustertest.Cluster, admin *client.Client) *visitor {
	t.Helper()
	s := &visitor{t: t, c: c, certificates: map[string]*tls.Certificate{"nothing": nil}}
	line := "imgcluster-master-key-v1 f5fac8af2578f500 t07xfydFS4K+p5aN+DoOfwMzq1jI34v53IKaZ6+7L+U="
	master, err := crypto.MasterKeyFromEnv(line)
	if err != nil {
		t.Fatal(err)
	}
	other, err := access.NewAuthority(master, c.Config.Cluster.Name)
	if err != nil {
		t.Fatal(err)
	}
	for what, own := range map[string]*access.Certificate{
		"another cluster's node": other.Node(2, "127.0.0.1"), "another cluster's administrator": other.Admin(),
	} {
		if s.certificates[what], err = own.Get(); err != nil {
			t.Fatal(err)
		}
	}
	s.certificates["its own"] = s.imitate(c.Authority(t))

	key := func(user string, role image.Role) (id, field string) {
		made, err := admin.AddAccessKey(t.Context(), wire.KeyRequest{User: user, Role: role})
		if err != nil {
			t.Fatal(err)
		}
		return made.ID, "Bearer " + made.ID + "." + made.Secret
	}
	var secret string
	s.aliceID, secret = key("alice", image.RoleWrite)
	_, s.mallory = key("mallory", image.RoleWrite)
	removed, field := key("alice", image.RoleWrite)
	removedAdmin, adminField := key("", image.RoleAdmin)
	for _, id := range []string{removed, removedAdmin} {
		if err := admin.RemoveAccessKey(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	s.senders = map[string]string{
		"none": "", "removed": field, "removed administrator": adminField,
		"wrong secret": secret[:len(secret)-4] + "AAAA", "no secret": "Bearer " + s.aliceID,
		"too long": "Bearer " + strings.Repeat("A", 8<<10), "node": "Basic bm9kZTpub2Rl",
	}
	client := s.client(nil)
	for _, id := range c.IDs() { // each has heard of the removals
		for _, field := range []string{field, adminField} {
			clustertest.Poll(t, "removed keys are refused", func() bool {
				return s.ask(client, id, http.MethodGet, wire.ClusterPath, field, nil).Status == http.StatusUnauthorized
			})
		}
	}
	return s
}

// imitate returns a certificate like that of a node, by an issuer of the same name, signed with another key.
func (s *visitor) imitate(a *access.Authority) *tls.Certificate {
	s.t.Helper()
	real, err := a.Node(2, "127.0.0.1").Get()
	if err != nil {
		s.t.Fatal(err)
	}
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: real.Leaf.Subject, URIs: real.Leaf.URIs,
		NotBefore: real.Leaf.NotBefore, NotAfter: real.Leaf.NotAfter, ExtKeyUsage: real.Leaf.ExtKeyUsage,
		KeyUsage: real.Leaf.KeyUsage, IPAddresses: real.Leaf.IPAddresses, DNSNames: real.Leaf.DNSNames,
	}
	issuer := &x509.Certificate{
		Subject: real.Leaf.Issuer, RawSubject: real.Leaf.RawIssuer, SubjectKeyId: real.Leaf.AuthorityKeyId,
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, secret.Public(), secret)
	if err != nil {
		s.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		s.t.Fatal(err)
	}
	if !bytes.Equal(leaf.RawIssuer, real.Leaf.RawIssuer) {
		s.t.Fatalf("issued by %s, not %s", leaf.Issuer, real.Leaf.Issuer)
	}
	return &tls.Certificate{Certificate: [][]byte{der, real.Certificate[0]}, PrivateKey: secret, Leaf: leaf}
}

// from returns another source address each time.
func (s *visitor) from() net.IP {
	n := s.address.Add(1)
	return net.IPv4(127, 77, byte(n>>8), byte(n))
}

// tls returns a stranger's side of TLS, which shows its certificate to whoever asks for one.
func (s *visitor) tls(own *tls.Certificate, protocols ...string) *tls.Config {
	return &tls.Config{
		InsecureSkipVerify: true, NextProtos: protocols,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if own == nil {
				return &tls.Certificate{}, nil
			}
			return own, nil
		},
	}
}

// dial connects to a port.
func (s *visitor) dial(address string) (net.Conn, error) {
	d := net.Dialer{Timeout: visitTime, LocalAddr: &net.TCPAddr{IP: s.from()}}
	conn, err := d.Dial("tcp", address)
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(visitTime))
	}
	return conn, err
}

// client returns an HTTP client of its own, with a certificate.
func (s *visitor) client(own *tls.Certificate) *http.Client {
	c := &http.Client{
		Timeout: visitTime,
		Transport: &http.Transport{
			TLSClientConfig: s.tls(own, access.ProtocolHTTP),
			DialContext:     func(_ context.Context, _, address string) (net.Conn, error) { return s.dial(address) },
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	s.clients = append(s.clients, c)
	return c
}

func (s *visitor) close() {
	for _, c := range s.clients {
		c.CloseIdleConnections()
	}
}

// ask sends a request. target is that of the request line, sent as it is.
func (s *visitor) ask(
	c *http.Client, to image.NodeID, method, target, authorization string, body []byte,
) clustertest.Response {
	u := &url.URL{Scheme: "https", Host: s.c.Addr(to), Opaque: "//" + s.c.Addr(to) + target}
	if path, query, ok := strings.Cut(target, "?"); ok {
		u.Opaque, u.RawQuery = "//"+s.c.Addr(to)+path, query
	}
	r := &http.Request{
		Method: method, URL: u, Host: s.c.Addr(to), ContentLength: int64(len(body)), Header: http.Header{
			"Imgcluster-Relayed": {"2"}, "Imgcluster-Forwarded": {"2"}, "Imgcluster-Broadcast": {"1,2,3"},
			"X-Forwarded-For": {"127.0.0.1"}, "Forwarded": {"for=127.0.0.1;by=node-1"}, "X-Real-Ip": {"127.0.0.1"},
			"X-Http-Method-Override": {"GET"}, "X-Original-Url": {wire.LivePath}, "Range": {"bytes=0-9"},
			"Upgrade": {"h2c"}, "Http2-Settings": {"AAMAAABkAAQAoAAAAAIAAAAA"}, "Content-Type": {wire.DocumentType},
		},
	}
	if body != nil {
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	resp, err := c.Do(r)
	if err != nil {
		return clustertest.Response{Err: err}
	}
	return clustertest.ReadResponse(resp)
}

var methods = []string{
	"GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "x",
}

// tricks are paths which another reader may take for something else than this program does.
var tricks = []string{
	"//v1/keys", "/v1//keys", "/v1/./keys", "/v1/images/../keys", "/livez/../v1/keys", "/livez/%2e%2e/v1/keys",
	"/v1/keys/", "/v1/keys;x=1", "/v1/keys%00", "/v1/keys%2f", "/V1/keys", "/v1%2fkeys", "/v1/%6beys",
	"/livez;/v1/keys",
	"/v1/images/alice/../alice/a.png", "/v1/images/alice/%2e%2e/alice/a.png", "/v1/images//alice/a.png",
	"/v1/images/alice%2fa.png", "/v1/images/alice/a.png/", "/v1/images/alice/a.png?form=encrypted",
	"/v1/images/%61lice/a.png", "/v1/images/alice?prefix=a&after=&limit=1",
	"/v1/images/mallory%2f..%2falice/a.png",
	"/v1/images/", "/v1/images", "/", "/metrics/", "/internal/", "/internal/v1/../../v1/keys",
	"/ui/", "/debug/pprof/", "/v1/events?user=alice",
	"/livez?x=/v1/keys", "/v1/cluster#/livez", "*",
}

// routes asks for everything with every method, as every stranger.
func (s *visitor) routes() {
	replace := strings.NewReplacer("{user}", "alice", "{name...}", "a.png", "{id}", s.aliceID,
		"{file}", image.FileID{}.String())
	targets := slices.Clone(tricks)
	for _, pattern := range api.Routes {
		targets = append(targets, replace.Replace(pattern))
	}
	slices.Sort(targets)
	targets = slices.Compact(targets)
	bodies := map[string][]byte{
		wire.KeysPath: []byte(`{"role":"admin"}`), wire.UsersPath: []byte(`{"name":"eve"}`),
		wire.MembersPath: []byte(`{"op":"drain","id":2}`), wire.JoinPath: []byte(`{"node":3,"replace":true}`),
	}
	var all sync.WaitGroup
	type sender struct {
		what, field string
		own         *tls.Certificate
	}
	senders := []sender{{"mallory", s.mallory, nil}}
	for what, field := range s.senders {
		senders = append(senders, sender{what, field, nil})
	}
	for what, own := range s.certificates {
		senders = append(senders, sender{what, "", own})
	}
	for i, x := range senders {
		client, to := s.client(x.own), s.c.IDs()[i%3]
		all.Go(func() {
			for k, target := range targets {
				for j, method := range methods {
					if x.what != "none" && x.what != "mallory" && (i+j+k)%3 != 0 {
						continue // each of the others sends a third of all
					}
					if x.what == "mallory" && target == wire.EventsPath && method == http.MethodGet {
						continue // it does not end
					}
					body := bodies[target]
					if body == nil && method == http.MethodPut {
						body = []byte("image of a stranger")
					}
					r := s.ask(client, to, method, target, x.field, body)
					if x.what == "mallory" {
						s.expectOwn(method, target, r)
						continue
					}
					s.expectRefused(x.what, method, target, r)
				}
			}
		})
	}
	all.Wait()
}

// expectRefused expects that a stranger is told nothing but that there is a node.
func (s *visitor) expectRefused(what, method, target string, r clustertest.Response) {
	s.t.Helper()
	path, _, _ := strings.Cut(target, "?")
	reads := method == http.MethodGet || method == http.MethodHead
	probe := (path == wire.LivePath || path == wire.ReadyPath) && reads
	switch {
	case probe && r.Status == http.StatusOK && len(r.Body) <= len("ok\n"):
	case (path == wire.UIPath || path == wire.OpenAPIPath) && reads &&
		r.Status == http.StatusOK: // the same for everybody
	case path == wire.SessionPath && method == http.MethodDelete && r.Status == http.StatusNoContent:
	case path == wire.SessionPath && method == http.MethodPost && r.Status == http.StatusBadRequest &&
		r.Problem.Code == image.KindInvalid: // there is no key in it
	case r.Status == http.StatusUnauthorized && r.Header.Get("Location") == "" && len(r.Body) < 1<<10:
	case r.Problem.Code == image.KindNoQuorum && strings.HasPrefix(what, "removed"): // it could not be looked up
	case r.Status == http.StatusBadRequest && len(r.Problem.Code) == 0 && len(r.Body) < 100: // of net/http
	default:
		s.t.Errorf("%s: %s %s: %d %v %.300s", what, method, target, r.Status, r.Err, r.Body)
	}
}

// expectOwn expects that another user's key does nothing here that it is not for.
func (s *visitor) expectOwn(method, target string, r clustertest.Response) {
	s.t.Helper()
	path, _, _ := strings.Cut(target, "?")
	reads := method == "GET" || method == "HEAD" || method == "OPTIONS"
	own := []string{
		wire.LivePath, wire.ReadyPath, wire.ClusterPath, wire.KeysPath, "/v1/%6beys", wire.UIPath,
		wire.SessionPath, wire.EventsPath,
	}
	switch {
	case r.Status >= 400 && r.Status < 500:
	case r.Status == http.StatusOK && reads && slices.Contains(own, path) &&
		!bytes.Contains(r.Body, []byte("alice")):
	case r.Status == http.StatusOK && reads && path == wire.OpenAPIPath: // whose examples have an alice
	case r.Status == http.StatusNoContent && method == "OPTIONS" && len(r.Body) == 0:
	case r.Status == http.StatusNoContent && method == http.MethodDelete && path == wire.SessionPath:
	default:
		s.t.Errorf("mallory: %s %s: %d %v %.300s", method, target, r.Status, r.Err, r.Body)
	}
}

// floods opens connections that say nothing, and sends 300,000 datagrams from 300 addresses.
func (s *visitor) floods(from *strangers) {
	var open []net.Conn
	for _, id := range s.c.IDs() {
		for _, port := range []string{s.c.Addr(id), s.c.RaftAddr(id)} {
			for range 50 {
				conn, err := s.dial(port)
				if err != nil {
					s.t.Errorf("connect to %s: %v", port, err)
					return
				}
				open = append(open, conn)
			}
		}
	}
	var messages [][]byte
	for _, m := range from.messages(3, 1) {
		messages = append(messages, marshal(s.t, &m))
	}
	const datagrams, each = 300_000, 1000
	for i := range datagrams / each {
		to, err := net.ResolveUDPAddr("udp", s.c.RaftAddr(s.c.IDs()[i%3]))
		if err != nil {
			s.t.Error(err)
			return
		}
		conn, err := net.DialUDP("udp", &net.UDPAddr{IP: s.from()}, to)
		if err != nil {
			s.t.Error(err)
			return
		}
		for range each {
			conn.Write(messages[i%len(messages)]) // what is too much for the socket is lost
		}
		conn.Close()
	}
	for _, conn := range open {
		conn.Close()
	}
}
