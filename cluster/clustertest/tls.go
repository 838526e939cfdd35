package clustertest

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"

	"imgcluster/cluster/access"
	"imgcluster/cluster/image"
	"imgcluster/config"
	"imgcluster/crypto"
)

// clientTLS returns the administrator's side of connections to the API, nil where that is plain HTTP. It
// makes the master key where there is none.
func clientTLS(cfg *config.Config) (*tls.Config, error) {
	if !cfg.Secured() {
		return nil, nil
	}
	master, err := crypto.LoadOrCreateMasterKey(cfg.Local.MasterKeyFile)
	if err != nil {
		return nil, err
	}
	a, err := access.NewAuthority(master, cfg.Cluster.Name)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(a.CertificatePEM()) {
		return nil, errors.New("the authority has no certificate")
	}
	return access.Client(roots, a.Admin()), nil
}

// TrustAgain has HTTP trust and show what follows from the master key that is in its place now, as after a
// rotation.
func (c *Cluster) TrustAgain(t testing.TB) {
	t.Helper()
	config, err := clientTLS(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	c.HTTP.CloseIdleConnections()
	c.HTTP = newHTTP(config)
}

// URL returns the address of something in a node's API. path is that of the request line, with the query.
func (c *Cluster) URL(id image.NodeID, path string) string {
	return c.Config.Scheme() + "://" + c.Addr(id) + path
}
