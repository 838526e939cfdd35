// Package access says who is at the other end of a connection. Everything follows from the master key: the
// cluster's certificate authority is derived from it, so that every node makes the same one, and each node
// signs its own certificates with it, in memory. To hold a certificate is to hold the master key.
package access

import (
	"bytes"
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
	"slices"
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

// Authority is a cluster's certificate authority: that of its master key and, while that is rotated, those of
// both. It is safe for concurrent use.
type Authority struct {
	cluster string
	issuers *crypto.PerKey[*issuer] // one of each master key

	mu      sync.Mutex
	crossed map[[2]*issuer]*x509.Certificate
}

// issuer is the authority of one master key.
type issuer struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate

	mu    sync.Mutex
	known map[[sha256.Size]byte]bool // certificates that it has signed, see signed
}

// knownMax bounds the certificates that an issuer knows. Only those with a good signature are kept.
const knownMax = 1024

// signed reports whether a certificate is signed by this authority. A request shows that of its connection
// each time, and the signature is as good as the first time.
func (i *issuer) signed(c *x509.Certificate) bool {
	sum := sha256.Sum256(c.Raw)
	i.mu.Lock()
	known := i.known[sum]
	i.mu.Unlock()
	if known {
		return true
	}
	if c.CheckSignatureFrom(i.certificate) != nil {
		return false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.known) >= knownMax {
		clear(i.known)
	}
	i.known[sum] = true
	return true
}

// NewAuthority derives the authority of a cluster from its master keys: ECDSA on P-256, since browsers refuse
// Ed25519. The same key and name give the same certificate, byte for byte. The error is that a key was
// zeroed.
func NewAuthority(masters crypto.Masters, cluster string) (*Authority, error) {
	issuers, err := crypto.NewPerKey(masters, func(m *crypto.MasterKey) (*issuer, error) {
		return newIssuer(m, cluster)
	})
	return &Authority{cluster: cluster, issuers: issuers, crossed: map[[2]*issuer]*x509.Certificate{}}, err
}

func newIssuer(master *crypto.MasterKey, cluster string) (*issuer, error) {
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
		SerialNumber: big.NewInt(1),
		// With the master key's ID: the name is what a peer goes by that may show one of two certificates.
		Subject: pkix.Name{
			CommonName: "imgcluster " + cluster, Organization: []string{"imgcluster"},
			OrganizationalUnit: []string{"master key " + master.ID()},
		},
		NotBefore:             authoritySince,
		NotAfter:              authorityUntil,
		SubjectKeyId:          id[:20],
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            1, // another authority of the cluster, see cross
	}
	// Without a source of randomness the signature is deterministic (RFC 6979).
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate authority: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	return &issuer{key: key, certificate: certificate, known: map[[sha256.Size]byte]bool{}}, err
}

// cross returns the certificate of an authority signed by another one: with it in the chain, whoever trusts
// the other one alone accepts what this one has signed.
func (a *Authority) cross(i, by *issuer) (*x509.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	pair := [2]*issuer{i, by}
	if c := a.crossed[pair]; c != nil {
		return c, nil
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(2),
		Subject:               i.certificate.Subject,
		NotBefore:             authoritySince,
		NotAfter:              authorityUntil,
		SubjectKeyId:          i.certificate.SubjectKeyId,
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(nil, template, by.certificate, i.key.Public(), by.key)
	if err != nil {
		return nil, fmt.Errorf("cross-sign the certificate authority: %w", err)
	}
	c, err := x509.ParseCertificate(der)
	if err == nil {
		a.crossed[pair] = c
	}
	return c, err
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

// CertificatePEM returns the certificate of the authority that signs as PEM: the file ca.crt, which is
// public.
func (a *Authority) CertificatePEM() []byte {
	signs, err := a.issuers.First()
	if err != nil {
		return nil // NewAuthority would have failed
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signs.certificate.Raw})
}

// pool returns a pool of the authorities that are good now.
func (a *Authority) pool() (*x509.CertPool, error) {
	all, err := a.issuers.All()
	pool := x509.NewCertPool()
	for _, i := range all {
		pool.AddCert(i.certificate)
	}
	return pool, err
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
	current map[*issuer]*signed
}

// signed is a certificate of one issuer.
type signed struct {
	certificate *tls.Certificate
	at          time.Time
	chain       int // how many others are good: each has signed the issuer, in the certificate's chain
}

// Get returns the certificate, signed again where it is old. The age is measured by the monotonic clock: a
// clock that is set has no effect. While the master key is rotated, the authority's own certificate is in the
// chain, signed by the other authority.
func (c *Certificate) Get() (*tls.Certificate, error) {
	all, err := c.authority.issuers.All()
	if err != nil {
		return nil, err
	}
	return c.by(all, all[0])
}

// accepted returns the certificate of the first authority that a server accepts, by its name; that of Get
// when the server names none of them.
func (c *Certificate) accepted(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	all, err := c.authority.issuers.All()
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		if slices.ContainsFunc(request.AcceptableCAs, func(name []byte) bool {
			return bytes.Equal(name, i.certificate.RawSubject)
		}) {
			return c.by(all, i)
		}
	}
	return c.by(all, all[0])
}

// by returns the certificate of one of the issuers that are good.
func (c *Certificate) by(good []*issuer, i *issuer) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for old := range c.current {
		if !slices.Contains(good, old) {
			delete(c.current, old)
		}
	}
	if s := c.current[i]; s != nil && time.Since(s.at) < certificateRenew && s.chain == len(good)-1 {
		return s.certificate, nil
	}
	at := time.Now()
	made, err := c.sign(i, at)
	for n := 0; err == nil && n < len(good); n++ {
		if good[n] != i {
			var crossed *x509.Certificate
			if crossed, err = c.authority.cross(i, good[n]); err == nil {
				made.Certificate = append(made.Certificate, crossed.Raw)
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", c.identity, err)
	}
	if c.current == nil {
		c.current = map[*issuer]*signed{}
	}
	c.current[i] = &signed{made, at, len(good) - 1}
	return made, nil
}

func (c *Certificate) sign(i *issuer, now time.Time) (*tls.Certificate, error) {
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
	der, err := x509.CreateCertificate(rand.Reader, template, i.certificate, key.Public(), i.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}
