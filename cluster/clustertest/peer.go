package clustertest

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"imgcluster/cluster/access"
	"imgcluster/cluster/image"
	"imgcluster/cluster/peerconn"
	"imgcluster/crypto"
)

// Authority returns the certificate authority of the cluster, whose master key nodes have made.
func (c *Cluster) Authority(t testing.TB) *access.Authority {
	t.Helper()
	master, err := crypto.LoadMasterKey(c.Config.Local.MasterKeyFile)
	if err != nil {
		t.Fatal(err)
	}
	a, err := access.NewAuthority(master, c.Config.Cluster.Name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// RaftAddr returns the address of a node's port for the other nodes, host:port.
func (c *Cluster) RaftAddr(id image.NodeID) string {
	n, err := c.Config.Node(id)
	if err != nil {
		c.t.Fatal(err)
	}
	return n.RaftAddr()
}

// DialAs connects to a node's port as another one does.
func (c *Cluster) DialAs(t testing.TB, as, to image.NodeID, protocol string) (net.Conn, error) {
	t.Helper()
	a := c.Authority(t)
	d := peerconn.Dialer{
		Credentials: peerconn.Credentials{Authority: a, Own: a.Node(as, "127.0.0.1")},
		Protocol:    protocol, Timeout: 10 * time.Second, Unanswered: Deadline,
	}
	conn, err := d.Dial(t.Context(), to, c.RaftAddr(to))
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// DoAs sends one request to one node as another node does.
func (c *Cluster) DoAs(
	t testing.TB, as image.NodeID, method string, to image.NodeID, path string, body []byte, header http.Header,
) Response {
	t.Helper()
	transport := &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
		return c.DialAs(t, as, to, access.ProtocolHTTP)
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, "https://node"+path, bytes.NewReader(body))
	if err != nil {
		return Response{Err: err}
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return Response{Err: err}
	}
	return ReadResponse(resp)
}

// CertificateAt returns a certificate as it is signed on a host whose clock is off by so much.
func CertificateAt(t *testing.T, own *access.Certificate, off time.Duration) (c *tls.Certificate) {
	t.Helper()
	at := time.Now().Add(off)
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(at)) // the clock in here begins in the year 2000
		var err error
		if c, err = own.Get(); err != nil {
			t.Fatal(err)
		}
	})
	return c
}
