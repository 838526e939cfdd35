package access

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"imgcluster/cluster/image"
)

// The protocols (ALPN) that nodes speak with each other, on one port.
const (
	ProtocolRaft = "imgcluster-raft/1"
	ProtocolHTTP = "http/1.1"
)

// PeerServer returns the TLS side of a node that other nodes connect to, with its own certificate: only
// nodes of the cluster get through. Key, name and role are checked, dates are not.
func (a *Authority) PeerServer(own *Certificate) *tls.Config {
	return a.naming(&tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     []string{ProtocolRaft, ProtocolHTTP},
		ClientAuth:     tls.RequireAnyClientCert, // VerifyConnection checks it
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own.Get() },
		VerifyConnection: func(s tls.ConnectionState) error {
			i, err := a.verify(s.PeerCertificates, x509.ExtKeyUsageClientAuth)
			if err == nil && i.Node == 0 {
				err = &CertificateError{
					Reason: ErrIdentity, Detail: i.String() + " is not a node",
					hint: "use the node's api_port",
				}
			}
			return err
		},
		SessionTicketsDisabled: true, // the certificate is checked on each connection
	})
}

// naming has a server name the authorities that are good when a client connects.
func (a *Authority) naming(c *tls.Config) *tls.Config {
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		pool, err := a.pool()
		if err != nil {
			return nil, err
		}
		now := c.Clone()
		now.ClientCAs, now.GetConfigForClient = pool, nil
		return now, nil
	}
	return c
}

// PeerClient returns the TLS side of a node that connects to another one, which must be the node `to`.
// protocol is ProtocolRaft or ProtocolHTTP.
func (a *Authority) PeerClient(own *Certificate, to image.NodeID, protocol string) *tls.Config {
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		NextProtos:           []string{protocol},
		GetClientCertificate: own.accepted,
		// In place of host names and dates, VerifyConnection checks key, cluster and node.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			i, err := a.verify(s.PeerCertificates, x509.ExtKeyUsageServerAuth)
			if err == nil && i.Node != to {
				err = &CertificateError{
					Reason: ErrIdentity, Detail: fmt.Sprintf("%s answers where node %d is expected", i, to),
					hint: "give cluster.nodes each node's own address",
				}
			}
			return err
		},
	}
}

// PeerOf returns the node at the other end of a connection that PeerServer's or PeerClient's side has
// accepted.
func PeerOf(s tls.ConnectionState) (image.NodeID, bool) {
	if !s.HandshakeComplete || len(s.PeerCertificates) == 0 {
		return 0, false
	}
	i, ok := identityOf(s.PeerCertificates[0])
	return i.Node, ok && i.Node != 0
}

// Clocks returns an error of reason ErrDates when the certificate at the other end of a connection is not
// valid now. Nodes connect all the same; clients, which check dates, do not get through to one of them.
func Clocks(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return nil
	}
	return checkDates(s.PeerCertificates[0], time.Now())
}

// ClientServer returns the TLS side of a node that clients connect to. serve gives the certificate, the
// node's own or the operator's. A client may have one of the authority, see Identify; browsers that have none
// ask nobody.
func (a *Authority) ClientServer(serve func() (*tls.Certificate, error)) *tls.Config {
	return a.naming(&tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     []string{ProtocolHTTP},
		ClientAuth:     tls.RequestClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return serve() },
	})
}

// Identify returns whom the client's certificate names on a connection of ClientServer's side; nil when it
// has none of the cluster's. The error, of reason ErrDates, is that it is not valid now, or of reason
// ErrForeign, that it is one of another cluster or master key. A certificate for something else, which a
// browser may have, is no error.
func (a *Authority) Identify(s *tls.ConnectionState) (*Identity, error) {
	if s == nil || len(s.PeerCertificates) == 0 {
		return nil, nil
	}
	i, err := a.verify(s.PeerCertificates, x509.ExtKeyUsageClientAuth)
	if _, ours := identityOf(s.PeerCertificates[0]); err != nil && !ours {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &i, checkDates(s.PeerCertificates[0], time.Now())
}

// Client returns the TLS side of a client that trusts the authorities in roots, and shows its own
// certificate where it has one (own may be nil).
func Client(roots *x509.CertPool, own *Certificate) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{ProtocolHTTP}, RootCAs: roots}
	if own != nil {
		c.GetClientCertificate = own.accepted
	}
	return c
}
