// Package access says who is at the other end of a connection. Everything follows from the master key: the
// cluster's certificate authority is derived from it, so that every node makes the same one, and each node
// signs its own certificates with it, in memory. To hold a certificate is to hold the master key.
package access

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/crypto"
)

// Purposes of what is derived from the master key.
const purposeAuthority = "imgcluster v1 certificate authority "

const (
	scalarBytes = 32 // of a private key of P-256
	// scalarTries bounds the draws of a scalar: one in 2^32 is out of range.
	scalarTries = 8
)

// The dates of the authority's certificate are fixed, so that every node makes the same one.
var (
	authoritySince = time.Date(2025, time.January, 1, 0, 0, 0, 0, time.UTC)
	authorityUntil = time.Date(2099, time.December, 31, 0, 0, 0, 0, time.UTC)
)

const (
	// certificateSince is how long before it is signed a certificate begins: clocks differ.
	certificateSince = 12 * time.Hour
	// certificateLife is how long after it is signed a certificate ends.
	certificateLife = 36 * time.Hour
	// certificateRenew is the age at which a certificate is signed again.
	certificateRenew = 6 * time.Hour
)

// Authority is a cluster's certificate authority. It is safe for concurrent use.
type Authority struct {
	cluster     string
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
}

// NewAuthority derives the authority of a cluster from its master key: ECDSA on P-256, since browsers refuse
// Ed25519. The same key and name give the same certificate, byte for byte. The error is that the key was
// zeroed.
func NewAuthority(master *crypto.MasterKey, cluster string) (*Authority, error) {
	key, err := deriveScalar(master.Derive, purposeAuthority+cluster)
	if err != nil {
		return nil, fmt.Errorf("derive the certificate authority: %w", err)
	}
	public, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(public)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "imgcluster " + cluster, Organization: []string{"imgcluster"}},
		NotBefore:             authoritySince,
		NotAfter:              authorityUntil,
		SubjectKeyId:          id[:20],
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	// Without a source of randomness the signature is deterministic (RFC 6979).
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate authority: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	return &Authority{cluster, key, certificate}, err
}

// deriveScalar derives a private key: HKDF with a counter, until the scalar is within the curve's order.
func deriveScalar(
	derive func(purpose string, n int) ([]byte, error), purpose string,
) (*ecdsa.PrivateKey, error) {
	var bad error
	for try := range scalarTries {
		scalar, err := derive(fmt.Sprintf("%s %d", purpose, try), scalarBytes)
		if err != nil {
			return nil, err
		}
		key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar)
		clear(scalar)
		if err == nil {
			return key, nil
		}
		bad = err
	}
	return nil, bad
}

// CertificatePEM returns the authority's certificate as PEM: the file ca.crt, which is public.
func (a *Authority) CertificatePEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw})
}

// pool returns a pool of the authority alone.
func (a *Authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// Node returns what gives a node its certificate: signed when it is first asked for, and again before it
// ends. host is an IP address or a name, by which clients reach the node; aliases are more of them.
func (a *Authority) Node(id image.NodeID, host string, aliases ...string) *Certificate {
	hosts := append([]string{host}, aliases...)
	return &Certificate{authority: a, identity: Identity{a.cluster, id}, hosts: hosts}
}

// Admin returns what gives a command that has the master key its certificate.
func (a *Authority) Admin() *Certificate {
	return &Certificate{authority: a, identity: Identity{a.cluster, 0}}
}

// Certificate is a certificate of the authority with its private key, both in memory only. It is safe for
// concurrent use.
type Certificate struct {
	authority *Authority
	identity  Identity
	hosts     []string

	mu      sync.Mutex
	current *tls.Certificate
	signed  time.Time
}

// Get returns the certificate, signed again where it is old. The age is measured by the monotonic clock: a
// clock that is set has no effect.
func (c *Certificate) Get() (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil && time.Since(c.signed) < certificateRenew {
		return c.current, nil
	}
	signed := time.Now()
	current, err := c.sign(signed)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", c.identity, err)
	}
	c.current, c.signed = current, signed
	return current, nil
}

func (c *Certificate) sign(now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: c.identity.String(), Organization: []string{"imgcluster"}},
		NotBefore:   now.Add(-certificateSince),
		NotAfter:    now.Add(certificateLife),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{c.identity.uri()},
	}
	if c.identity.Node != 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, host := range c.hosts {
		if addr, err := netip.ParseAddr(host); err == nil {
			template.IPAddresses = append(template.IPAddresses, addr.WithZone("").AsSlice())
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	a := c.authority
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}
