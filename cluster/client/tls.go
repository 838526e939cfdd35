package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"imgcluster/cluster/access"
	"imgcluster/cluster/bulkio"
	"imgcluster/cluster/image"
)

// ErrMistrusted is in the chain of the error of a request whose nodes did not prove that they are nodes of
// the cluster. The error's kind is image.KindInvalid.
var ErrMistrusted = errors.New("no node of the cluster")

// handshake makes a connection to a node one of TLS. The node has ReadTimeout for its part.
func handshake(ctx context.Context, raw net.Conn, addr string, o Options) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.ReadTimeout, errTimeout)
	defer cancel()
	config := o.TLS.Clone()
	config.ServerName = host
	config.DynamicRecordSizingDisabled = true
	secure := bulkio.Client(raw, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		raw.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return conn{secure}, nil
}

const hintScheme = "give the nodes and this command the same cluster.nodes and security settings"

// explain says what is wrong with whatever answers at a node's address in the node's place.
func (c *Client) explain(n Node, err error) error {
	if c.o.TLS == nil {
		return err
	}
	if errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &tls.RecordHeaderError{}) {
		return mistrust(n, "does not speak TLS, but plain HTTP or something else").WithHint(hintScheme)
	}
	var bad *access.CertificateError
	if err := access.Explain(err, c.o.TLS.RootCAs); errors.As(err, &bad) {
		return mistrust(n, "is not trusted: %w", bad).WithHint(bad.Hint())
	}
	return err
}

func mistrust(n Node, format string, args ...any) *image.Error {
	e := image.Errorf(image.KindInvalid, format, args...)
	e.Detail = fmt.Sprintf("node %d at %s %s", n.ID, n.Addr, e.Detail)
	e.Err = errors.Join(ErrMistrusted, e.Err)
	return e
}

// tlsWanted is what net/http answers, with status 400, to plain HTTP where it expects TLS.
const tlsWanted = "Client sent an HTTP request to an HTTPS server"

// wantsTLS reports whether an answer says that the request should have come by TLS.
func wantsTLS(resp *http.Response) bool {
	if resp.StatusCode != http.StatusBadRequest || resp.Request.URL.Scheme != "http" {
		return false
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, int64(len(tlsWanted)))) // what came is enough
	return bytes.Equal(text, []byte(tlsWanted))
}
