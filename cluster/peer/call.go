package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"imgcluster/cluster/access"
	"imgcluster/cluster/image"
	"imgcluster/cluster/peerconn"
	"imgcluster/cluster/trace"
	"imgcluster/cluster/wire"
)

// sendBufferBytes is the buffer of a connection for relayed uploads: every slow client may hold some.
const sendBufferBytes = 64 << 10

// IdleConnections are kept open to another node while they are not used.
const IdleConnections = 16

// answerBytesMax bounds what a peer answers, but for images and lists.
const answerBytesMax = 256 << 10

// newTransport returns connections to the other nodes, in whose URLs the host is wire.NodeHost. A buffer of 0
// is that of net/http, 4 KiB.
func (s *Set) newTransport(write int) http.RoundTripper {
	return refuseRedirects{&http.Transport{
		DialTLSContext:      s.dial,
		MaxIdleConnsPerHost: IdleConnections, IdleConnTimeout: time.Minute, DisableCompression: true,
		WriteBufferSize: write,
	}}
}

// dial connects to the peer that a URL has named. That another one is at its address is an error of its own:
// it is no reason to call again.
func (s *Set) dial(ctx context.Context, _, host string) (net.Conn, error) {
	id, ok := wire.ParseNodeHost(host)
	addr := s.Address(id)
	if !ok || addr == "" {
		return nil, notMember(id)
	}
	conn, err := s.o.Dialer.Dial(ctx, id, addr)
	if bad := (*access.CertificateError)(nil); errors.As(err, &bad) {
		return nil, image.Errorf(image.KindInvalid, "at %s, where node %d should be: %w", addr, id, bad).
			WithHint(bad.Hint())
	}
	if err != nil {
		return nil, err
	}
	return conn, nil
}

func notMember(id image.NodeID) error {
	return image.Errorf(image.KindNoQuorum, "node %d is not a member of the cluster", id)
}

// refuseRedirects makes an answer that sends the request elsewhere an error: nodes give none, and what they
// tell each other is not for whoever such an answer names.
type refuseRedirects struct{ *http.Transport }

// RoundTrip implements http.RoundTripper.
func (t refuseRedirects) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.Transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 || resp.StatusCode >= 400 || resp.StatusCode == http.StatusNotModified {
		return resp, nil
	}
	resp.Body.Close()
	return nil, image.Errorf(image.KindInvalid,
		"%s, where a node should be, answered %s to %q: a node does not redirect",
		req.URL.Host, resp.Status, resp.Header.Get("Location")).
		WithHint("check the nodes' addresses in the configuration, and that no proxy stands between the nodes")
}

// Transport is how to forward a client's request to a peer, whose wire.NodeHost is the URL's host.
func (s *Set) Transport() http.RoundTripper { return s.http.Transport }

// request returns a request to a peer. What it is for has its ID.
func (s *Set) request(
	ctx context.Context, id image.NodeID, method, path string, body io.Reader,
) (*http.Request, error) {
	if s.Address(id) == "" {
		return nil, notMember(id)
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+wire.NodeHost(id)+path, body)
	if r := trace.From(ctx); r != nil && err == nil {
		req.Header.Set(wire.RequestField, r.ID)
		r.Inject(req.Header)
	}
	return req, err
}

func (s *Set) get(ctx context.Context, id image.NodeID, path, byteRange string) (*http.Response, error) {
	req, err := s.request(ctx, id, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	if byteRange != "" {
		req.Header.Set("Range", byteRange)
	}
	return do(s.http, req)
}

// do sends a request and turns an answer that is not a success into its error.
func do(c *http.Client, req *http.Request) (*http.Response, error) {
	resp, err := c.Do(req)
	if refused := (*image.Error)(nil); errors.As(err, &refused) {
		return nil, refused // without the URL
	}
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	if problem := wire.ReadProblem(resp); problem != nil {
		return nil, problem
	}
	return nil, fmt.Errorf("%s answered %s", req.URL.Host, resp.Status)
}

// Send relays an upload to a storing node, with all that its client asked for: a shard's leader may hear of
// the upload from that node alone.
func (s *Set) Send(ctx context.Context, to image.NodeID, up image.Request, body io.Reader) error {
	req, err := s.request(ctx, to, http.MethodPut, wire.ImagePath(up.User, up.Name), io.NopCloser(body))
	if err != nil {
		return err
	}
	req.ContentLength = up.Size
	if up.Type != "" {
		req.Header.Set("Content-Type", up.Type)
	}
	wire.SetUpload(req.Header, up)
	resp, err := do(s.send, req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, answerBytesMax))
	return err
}

// OpenCopy returns bytes [off, off+n) of a peer's file of a copy. Reading fails when none come for a
// while.
func (s *Set) OpenCopy(ctx context.Context, node image.NodeID, f image.FileID, off, n int64,
) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	b := &body{cancel: cancel, node: node, stall: s.o.Stall}
	var resp *http.Response
	err := b.within(func() (err error) {
		resp, err = s.get(ctx, node, wire.CopyPath(f), fmt.Sprintf("bytes=%d-%d", off, off+n-1))
		return err
	})
	if err != nil {
		cancel(nil)
		return nil, err
	}
	b.from = resp.Body
	if resp.StatusCode != http.StatusPartialContent || resp.ContentLength > n {
		b.Close()
		return nil, fmt.Errorf("node %d answered %s to a range request", node, resp.Status)
	}
	return b, nil
}

// stalled is why a call of a peer that answered nothing for a while ended.
func stalled(node image.NodeID) error { return fmt.Errorf("node %d stalled", node) }

// body is an answer that ends when the peer sends nothing for a while. Its connection alone may
// be dead while the peer's signs of life come on another one.
type body struct {
	from   io.ReadCloser
	cancel context.CancelCauseFunc
	node   image.NodeID
	stall  time.Duration
}

// within gives f the time of a stall.
func (b *body) within(f func() error) error {
	timer := time.AfterFunc(b.stall, func() { b.cancel(stalled(b.node)) })
	defer timer.Stop()
	return f()
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (n int, err error) {
	err = b.within(func() error {
		n, err = b.from.Read(p)
		return err
	})
	return n, err
}

// Close implements io.Closer.
func (b *body) Close() error {
	defer b.cancel(nil)
	return b.from.Close()
}

// CopyBytes asks for the length of a peer's file of a copy.
func (s *Set) CopyBytes(ctx context.Context, node image.NodeID, f image.FileID) (int64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.o.Stall, stalled(node))
	defer cancel()
	req, err := s.request(ctx, node, http.MethodHead, wire.CopyPath(f), nil)
	if err != nil {
		return 0, err
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("node %d answered %s", node, resp.Status)
	}
	return resp.ContentLength, nil
}

// ListImages opens what some shards on a peer list, in JSON. The caller closes it.
func (s *Set) ListImages(
	ctx context.Context, node image.NodeID, shards []uint64, user, prefix, after string, limit int,
) (io.ReadCloser, error) {
	q := wire.ListQuery{Prefix: prefix, After: after, Limit: limit}.Values()
	wire.ShardQuery{Shards: shards, User: user}.Set(q)
	resp, err := s.get(ctx, node, wire.ShardListPath+"?"+q.Encode(), "")
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// OpenShard opens the state of a shard on a peer, and reports whether that may lack the newest changes. The
// caller closes it.
func (s *Set) OpenShard(
	ctx context.Context, node image.NodeID, shard uint64,
) (state io.ReadCloser, behind bool, err error) {
	resp, err := s.get(ctx, node, wire.ShardPath(shard), "")
	if err != nil {
		return nil, false, err
	}
	return resp.Body, resp.Header.Get(wire.BehindField) != "", nil
}

// OldCopies asks a peer for the copies under older keys in some shards, by node.
func (s *Set) OldCopies(
	ctx context.Context, node image.NodeID, q wire.OldCopiesQuery,
) (wire.OldCopies, error) {
	resp, err := s.get(ctx, node, wire.OldCopiesPath+"?"+q.Values().Encode(), "")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var old wire.OldCopies
	err = json.NewDecoder(io.LimitReader(resp.Body, answerBytesMax)).Decode(&old)
	return old, err
}

// Post sends a JSON body to a peer and returns the answer.
func (s *Set) Post(ctx context.Context, node image.NodeID, path string, body []byte) ([]byte, error) {
	req, err := s.request(ctx, node, http.MethodPost, path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", wire.DocumentType)
	resp, err := do(s.http, req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, answerBytesMax))
}

// Suspect asks a peer to look at its copy of an image.
func (s *Set) Suspect(ctx context.Context, node image.NodeID, rec *image.Record) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.o.Stall, stalled(node))
	defer cancel()
	path := wire.SuspectPath + "?" + wire.NameQuery(rec.User, rec.Name).Encode()
	_, err := s.Post(ctx, node, path, nil)
	return err
}

// NotNode reports whether err means that what is at a peer's address is no node of this version.
func NotNode(err error) bool { return errors.Is(err, peerconn.ErrNotNode) }

// Unreachable reports whether err means that a peer did not answer at all, rather than that it refused.
func Unreachable(err error) bool { return err != nil && !errors.As(err, new(*image.Error)) }
