package access

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Explain returns, for a client's error of a TLS handshake, what is wrong with the server's certificate and
// what to do about it: a *CertificateError. roots are those that the client trusts, nil for the host's. Other
// errors are returned as they are.
func Explain(err error, roots *x509.CertPool) error {
	var failed *tls.CertificateVerificationError
	if !errors.As(err, &failed) || len(failed.UnverifiedCertificates) == 0 {
		return err
	}
	leaf := failed.UnverifiedCertificates[0]
	now := time.Now()
	if dated := outOfDate(leaf, now); dated != nil {
		// Whose certificate it is comes first: the clock of another cluster does not matter.
		rest := x509.NewCertPool()
		for _, c := range failed.UnverifiedCertificates[1:] {
			rest.AddCert(c)
		}
		_, err := leaf.Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: rest, CurrentTime: leaf.NotBefore.Add(time.Second),
		})
		if err == nil {
			return dated
		}
	}
	var name x509.HostnameError
	if errors.As(err, &name) {
		return &CertificateError{
			Reason: ErrIdentity,
			Detail: fmt.Sprintf("the certificate of %s is not for the host %.200q", subject(leaf), name.Host),
			hint: "give cluster.nodes each node's own address, as on the node itself; " +
				"another name of it belongs into its node.host_names",
		}
	}
	return &CertificateError{
		Reason: ErrForeign,
		Detail: fmt.Sprintf(
			"the certificate of %s, signed by %.200q, is not from an authority that is trusted here: %v",
			subject(leaf), leaf.Issuer.CommonName, failed.Err),
		hint: "copy ca.crt from a node of the cluster (client.ca_file); where it is that one, " +
			"another cluster answers at this address: check cluster.nodes",
	}
}

// outOfDate returns what is wrong with a certificate's dates, nil when it is valid now.
func outOfDate(leaf *x509.Certificate, now time.Time) error {
	if _, ours := identityOf(leaf); ours || !now.Before(leaf.NotBefore) && !now.After(leaf.NotAfter) {
		return checkDates(leaf, now)
	}
	return &CertificateError{
		Reason: ErrDates,
		Detail: fmt.Sprintf("the certificate of %s is valid from %s to %s, and here it is %s", subject(leaf),
			leaf.NotBefore.UTC().Format(time.DateTime), leaf.NotAfter.UTC().Format(time.DateTime),
			now.UTC().Format(time.DateTime)),
		hint: "renew it (tls.cert_file of the node); where it is valid, set this host's clock",
	}
}

// subject says whom a certificate names, in its own words: it may be anyone's.
func subject(c *x509.Certificate) string {
	if c.Subject.CommonName == "" && len(c.DNSNames) > 0 {
		return fmt.Sprintf("%.200q", c.DNSNames[0])
	}
	return fmt.Sprintf("%.200q", c.Subject.CommonName)
}
