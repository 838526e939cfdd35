package cluster_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"imgcluster/cluster/access"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
	"imgcluster/cluster/peerconn"
)

// TestClocksDiffer comes to a running node from hosts whose clocks are two days off. Another node is let in,
// so that a clock which jumps cuts no node off, and the log says that it is the clocks; so does the answer to
// an administrator, who is not let in.
func TestClocksDiffer(t *testing.T) {
	t.Parallel()
	const off = 48 * time.Hour
	core, log := observer.New(zapcore.WarnLevel)
	c := clustertest.Start(t, clustertest.Options{Secured: true, Log: core})
	a := c.Authority(t)
	roots := c.HTTP.Transport.(*http.Transport).TLSClientConfig.RootCAs
	shows := func(config *tls.Config, own *tls.Certificate) *tls.Config {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return own, nil
		}
		return config
	}
	get := func(config *tls.Config, url string) clustertest.Response {
		transport := &http.Transport{TLSClientConfig: config}
		defer transport.CloseIdleConnections()
		resp, err := (&http.Client{Transport: transport}).Get(url)
		if err != nil {
			t.Fatal(err)
		}
		return clustertest.ReadResponse(resp)
	}
	const noCopy = "/internal/v1/copies/0190b6a0-7c1e-7cc0-a1f4-5d6e7f8091a2-2-" +
		"a0000000000000000000000000000001"
	for id, off := range map[image.NodeID]time.Duration{2: off, 3: -off} {
		node := clustertest.CertificateAt(t, a.Node(id, "127.0.0.1"), off)
		if apart := time.Until(node.Leaf.NotAfter) - off; apart < 35*time.Hour || apart > 37*time.Hour {
			t.Fatalf("it ends at %v", node.Leaf.NotAfter)
		}
		peer := a.PeerClient(a.Node(id, "127.0.0.1"), 1, access.ProtocolHTTP)
		r := get(shows(peer, node), "https://"+c.RaftAddr(1)+noCopy)
		clustertest.ExpectProblem(t, r, image.KindNotFound) // it was let in
		admin := clustertest.CertificateAt(t, a.Admin(), off)
		r = get(shows(access.Client(roots, nil), admin), c.URL(1, "/v1/cluster"))
		clustertest.ExpectProblem(t, r, image.KindUnauthorized)
		if !strings.Contains(r.Problem.Detail, "the clocks of this host and of the administrator of") ||
			!strings.Contains(r.Problem.Detail, "differ by about 48h: ") ||
			!strings.Contains(r.Problem.Hint, "set the clocks") {
			t.Errorf("%v off: %s", off, r.Body)
		}
	}
	said := log.FilterMessageSnippet("clocks differ").AllUntimed()
	if len(said) != 2 {
		t.Errorf("logged: %+v", said)
	}
	for _, entry := range said {
		fields := entry.ContextMap()
		if text, _ := fields["error"].(string); !strings.Contains(text, "differ by about 48h: ") ||
			fields["hint"] != "set the clocks of both hosts, such as by NTP" {
			t.Errorf("logged: %v", fields)
		}
	}

	// And the other way round: the node that is connected to is the one.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	two := clustertest.CertificateAt(t, a.Node(2, "127.0.0.1"), -off)
	serves := a.PeerServer(a.Node(2, "127.0.0.1"))
	serves.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return two, nil }
	served := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			err = tls.Server(conn, serves).HandshakeContext(context.Background())
			defer conn.Close()
		}
		served <- err
	}()
	d := peerconn.Dialer{
		Credentials: peerconn.Credentials{Authority: a, Own: a.Node(1, "127.0.0.1")},
		Protocol:    access.ProtocolRaft, Timeout: clustertest.Deadline, Unanswered: clustertest.Deadline,
	}
	conn, err := d.Dial(t.Context(), 2, l.Addr().String())
	if err != nil {
		t.Fatalf("node 2 with another clock is not connected to: %v", err)
	}
	defer conn.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
	c.WaitReady(c.IDs()...)
}
