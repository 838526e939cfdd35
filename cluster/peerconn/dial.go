package peerconn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"imgcluster/cluster/bulkio"
	"imgcluster/cluster/halfopen"
	"imgcluster/cluster/image"
)

// Dialer connects to other nodes. All fields are needed.
type Dialer struct {
	Credentials
	Protocol   string        // of package access
	Timeout    time.Duration // to connect and to shake hands
	Unanswered time.Duration // see halfopen.Dialer
}

// ErrNotNode: what accepted a connection does not answer as a node of this version does. One that only closes
// it may be a forwarder whose node is down.
var ErrNotNode = errors.New("it does not answer as a node of this version of imgcluster does")

// Dial connects to a node at host:port. The other end of the connection is that node. Whether it takes this
// node's certificate is known only when it has sent something.
func (d *Dialer) Dial(ctx context.Context, to image.NodeID, address string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	raw, err := halfopen.Dialer(d.Timeout, d.Unanswered).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	raw = bulkio.NewQuietConn(raw)
	config := d.Authority.PeerClient(d.Own, to, d.Protocol)
	config.DynamicRecordSizingDisabled = true
	conn := tls.Client(raw, config)
	err = conn.HandshakeContext(ctx)
	if err == nil && conn.ConnectionState().NegotiatedProtocol != d.Protocol {
		err = fmt.Errorf("it does not speak %s: %w", d.Protocol, ErrNotNode)
	}
	if errors.As(err, new(tls.RecordHeaderError)) {
		err = fmt.Errorf("%w: %w", ErrNotNode, err)
	}
	if err != nil {
		raw.Close()
		return nil, fmt.Errorf("connect to node %d at %s: %w", to, address, err)
	}
	return conn, nil
}
