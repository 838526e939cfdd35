package access

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"imgcluster/cluster/image"
)

// Identity is whom a certificate of the authority names: a node of a cluster, or its administrator.
type Identity struct {
	Cluster string
	Node    image.NodeID // 0: the administrator
}

// String implements fmt.Stringer.
func (i Identity) String() string {
	if i.Node == 0 {
		return fmt.Sprintf("the administrator of %s", i.Cluster)
	}
	return fmt.Sprintf("node %d of %s", i.Node, i.Cluster)
}

const (
	uriScheme = "imgcluster"
	uriNode   = "node"
	uriAdmin  = "admin"
)

// uri is the identity's URI SAN: imgcluster:///CLUSTER/node/ID or imgcluster:///CLUSTER/admin. The name is no
// host of the URI, where not every name would be allowed.
func (i Identity) uri() *url.URL {
	rest := uriAdmin
	if i.Node != 0 {
		rest = uriNode + "/" + strconv.FormatUint(uint64(i.Node), 10)
	}
	return &url.URL{Scheme: uriScheme, Path: "/" + url.PathEscape(i.Cluster) + "/" + rest}
}

// identityOf reads the one URI SAN of a certificate, which must be as uri makes it.
func identityOf(c *x509.Certificate) (Identity, bool) {
	if len(c.URIs) != 1 || c.URIs[0].Scheme != uriScheme {
		return Identity{}, false
	}
	parts := strings.Split(strings.TrimPrefix(c.URIs[0].Path, "/"), "/")
	cluster, err := url.PathUnescape(parts[0])
	if err != nil {
		return Identity{}, false
	}
	i := Identity{Cluster: cluster}
	if len(parts) == 3 {
		id, err := strconv.ParseUint(parts[2], 10, 32)
		if err != nil {
			return Identity{}, false
		}
		i.Node = image.NodeID(id)
	}
	return i, i.uri().String() == c.URIs[0].String()
}

// Reasons for which a certificate is refused, for errors.Is.
var (
	// ErrForeign: it is not signed by the cluster's authority, or not for such a use.
	ErrForeign = errors.New("certificate is not of this cluster")
	// ErrDates: it is not valid at this time, by this clock.
	ErrDates = errors.New("certificate is not valid at this time")
	// ErrIdentity: it is of this cluster, and of another node or role than is needed.
	ErrIdentity = errors.New("certificate is of another node or role")
)

// CertificateError says why a certificate is refused.
type CertificateError struct {
	Reason error // ErrForeign, ErrDates or ErrIdentity
	Detail string
	hint   string
}

// Error implements error.
func (e *CertificateError) Error() string { return e.Detail }

// Unwrap returns the reason.
func (e *CertificateError) Unwrap() error { return e.Reason }

// Hint returns what to do next.
func (e *CertificateError) Hint() string { return e.hint }

// verify checks that a certificate is signed for a use by an authority that is good, or by one that such a
// one has signed, and returns whom it names. It does not look at dates: a clock that jumps must not cut a
// healthy node off.
func (a *Authority) verify(chain []*x509.Certificate, use x509.ExtKeyUsage) (Identity, error) {
	if len(chain) == 0 {
		return Identity{}, &CertificateError{
			Reason: ErrForeign, Detail: "the peer has no certificate",
			hint: "run the same imgcluster version and master key on every node",
		}
	}
	good, err := a.issuers.All()
	if err != nil {
		return Identity{}, err
	}
	leaf := chain[0]
	i, ok := identityOf(leaf)
	// What costs nothing is asked first.
	if !ok || i.Cluster != a.cluster || !slices.Contains(leaf.ExtKeyUsage, use) || !signedBy(good, chain) {
		return Identity{}, &CertificateError{
			Reason: ErrForeign,
			Detail: fmt.Sprintf("certificate of %.200q, signed by %.200q, is not of the cluster %s "+
				"with this master key", leaf.Subject.CommonName, leaf.Issuer.String(), a.cluster),
			hint: "give both sides the same master key file and cluster.name",
		}
	}
	return i, nil
}

// crossedMax is how many authorities in a peer's chain are looked at: it is not known yet.
const crossedMax = 2

// signedBy reports whether a leaf is signed by one of the authorities, or by an authority in its chain that
// one of them has signed.
func signedBy(good []*issuer, chain []*x509.Certificate) bool {
	by := func(c *x509.Certificate) bool {
		return slices.ContainsFunc(good, func(i *issuer) bool { return i.signed(c) })
	}
	leaf, rest := chain[0], chain[1:min(len(chain), 1+crossedMax)]
	return by(leaf) || slices.ContainsFunc(rest, func(other *x509.Certificate) bool {
		return other.BasicConstraintsValid && other.IsCA && leaf.CheckSignatureFrom(other) == nil && by(other)
	})
}

// checkDates refuses a certificate that is not valid now. Its holder signed it just before, so that it is a
// clock which is wrong.
func checkDates(leaf *x509.Certificate, now time.Time) error {
	var off time.Duration
	switch {
	case now.Before(leaf.NotBefore):
		off = leaf.NotBefore.Add(certificateSince).Sub(now)
	case now.After(leaf.NotAfter):
		off = now.Sub(leaf.NotAfter.Add(-certificateLife))
	default:
		return nil
	}
	return &CertificateError{
		Reason: ErrDates,
		Detail: fmt.Sprintf("the clocks of this host and of %.200s differ by about %.0fh: "+
			"its certificate is valid from %s to %s, and here it is %s",
			leaf.Subject.CommonName, off.Hours(), leaf.NotBefore.UTC().Format(time.DateTime),
			leaf.NotAfter.UTC().Format(time.DateTime), now.UTC().Format(time.DateTime)),
		hint: "set the clocks of both hosts, such as by NTP",
	}
}
