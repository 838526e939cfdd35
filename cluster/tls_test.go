package cluster_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
	"imgcluster/config"
)

// TestTLS uses a cluster with TLS and access keys as its administrator, and as someone who has nothing.
func TestTLS(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Secured: true})
	cl := c.Client(t, client.Broadcast)
	body := clustertest.Image(1, 3<<20)
	res, err := cl.Put(t.Context(), client.Upload{
		User: "alice", Name: "a.png", Size: int64(len(body)),
		Body: func() io.Reader { return bytes.NewReader(body) },
	})
	if err != nil {
		t.Fatal(err)
	}
	<-res.Done
	c.ExpectImage(t, "alice", "a.png", body, c.IDs()...)
	c.Put(t, 2, "alice", "b.png", body[1:], nil)
	c.ExpectImage(t, "alice", "b.png", body[1:], c.IDs()...)
	if s := c.Status(1); s.Images != 2 || s.Insecure {
		t.Errorf("status %+v", s)
	}

	// Without a certificate, and with nothing known of whoever answers.
	stranger := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	defer stranger.CloseIdleConnections()
	resp, err := stranger.Get(c.URL(1, clustertest.Path("alice", "a.png")))
	if err != nil {
		t.Fatal(err)
	}
	clustertest.ExpectProblem(t, clustertest.ReadResponse(resp), image.KindUnauthorized)
	resp, err = http.Get("http://" + c.Addr(1) + clustertest.Path("alice", "a.png"))
	if err != nil {
		t.Fatal(err)
	}
	r := clustertest.ReadResponse(resp)
	if r.Status != http.StatusBadRequest || bytes.Contains(r.Body, body[:20]) {
		t.Errorf("plain HTTP: %d %s", r.Status, r.Body)
	}
	old, err := tls.Dial("tcp", c.Addr(1), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err == nil {
		old.Close()
		t.Error("TLS 1.2 is served")
	}
	h2, err := tls.Dial("tcp", c.Addr(1), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err == nil {
		h2.Close()
		t.Error("HTTP/2 is served")
	}
}

// ownCertificate writes a certificate for 127.0.0.1 of an authority of its own, which it returns.
func ownCertificate(t *testing.T, chain, key, name string) *x509.CertPool {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, secret.Public(), secret)
	if err != nil {
		t.Fatal(err)
	}
	secretDER, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for file, text := range map[string][]byte{
		key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secretDER}), chain: text,
	} {
		if err := os.WriteFile(file+".new", text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return roots
}

// TestOwnCertificate serves a certificate of the operator's, and another one without a restart. The nodes
// among themselves use their own all the time.
func TestOwnCertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	chain, key := filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem")
	first := ownCertificate(t, chain, key, "first")
	c := clustertest.New(t, clustertest.Options{Secured: true, Change: func(cfg *config.Config) {
		cfg.TLS = config.TLS{CertFile: chain, KeyFile: key}
	}})
	c.HTTP.Transport.(*http.Transport).TLSClientConfig.RootCAs = first
	c.StartAll()
	body := clustertest.Image(2, 1<<20)
	c.Put(t, 1, "alice", "a.png", body, nil)
	second := ownCertificate(t, chain, key, "second")
	serves := func(roots *x509.CertPool) bool {
		conn, err := tls.Dial("tcp", c.Addr(1), &tls.Config{RootCAs: roots})
		if err != nil {
			return false
		}
		conn.Close()
		return true
	}
	clustertest.Poll(t, "the new certificate", func() bool { return serves(second) })
	if serves(first) {
		t.Error("the first certificate is still served")
	}
	c.ExpectImage(t, "alice", "a.png", body, 1)        // on the kept connection
	warned := strings.Join(c.Status(1).Warnings, "; ") // it is good for an hour
	if !strings.Contains(warned, "the certificate of node 1 ends in 1 hours (tls.cert_file)") {
		t.Errorf("warns of %q", warned)
	}
}

// TestOwnCertificateRefused: a node with a certificate that it cannot use does not start, and leaves nothing.
func TestOwnCertificateRefused(t *testing.T) {
	dir := t.TempDir()
	chain, key := filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem")
	ownCertificate(t, chain, key, "first")
	if err := os.Chmod(key, 0o640); err != nil {
		t.Fatal(err)
	}
	c := clustertest.New(t, clustertest.Options{Secured: true, Change: func(cfg *config.Config) {
		cfg.TLS = config.TLS{CertFile: chain, KeyFile: key}
	}})
	err := c.TryStart(c.Config, 1)
	if err == nil || !strings.Contains(err.Error(), "has mode 0640") ||
		!strings.HasPrefix(image.HintOf(err), "chmod 400 ") {
		t.Errorf("%v: %s", err, image.HintOf(err))
	}
	if _, err := os.Stat(c.Config.DataDir(1)); err == nil {
		t.Error("it has made a data directory")
	}
}
