package clustertest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// Response is an HTTP response, read to its end. Status is 0 when there was none; Err is the reason.
type Response struct {
	Status  int
	Header  http.Header
	Body    []byte
	Problem image.Problem // of an application/problem+json answer
	Err     error
}

// Do sends one request to one node. path is that of the request line, with the query. With the Content-Length
// -1 the length of the body is not declared.
func (c *Cluster) Do(
	method string, id image.NodeID, path string, body io.Reader, header http.Header,
) Response {
	req, err := http.NewRequest(method, c.URL(id, path), body)
	if err != nil {
		return Response{Err: err}
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if n := header.Get("Content-Length"); n == "-1" {
		req.ContentLength = -1
		req.Header.Del("Content-Length")
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return Response{Err: err}
	}
	return ReadResponse(resp)
}

// ReadResponse reads a response to its end.
func ReadResponse(resp *http.Response) Response {
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	r := Response{Status: resp.StatusCode, Header: resp.Header, Body: b, Err: err}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") {
		if err := json.Unmarshal(b, &r.Problem); err != nil {
			r.Err = fmt.Errorf("malformed problem %q: %w", b, err)
		}
	}
	return r
}

// Path returns the path of an image in the API.
func Path(user, name string) string {
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return "/v1/images/" + url.PathEscape(user) + "/" + strings.Join(parts, "/")
}

// DoAgain is Do with a client's retries: it repeats the request while the node has no quorum, which on a busy
// host lasts for an election.
func (c *Cluster) DoAgain(
	t testing.TB, method string, id image.NodeID, path string, body []byte, header http.Header,
) (r Response) {
	t.Helper()
	Poll(t, "a quorum", func() bool {
		r = c.Do(method, id, path, bytes.NewReader(body), header)
		return r.Problem.Code != image.KindNoQuorum
	})
	return r
}

// Put stores an image through one node and returns its receipt.
func (c *Cluster) Put(
	t testing.TB, id image.NodeID, user, name string, body []byte, header http.Header,
) image.Receipt {
	t.Helper()
	return Receipt(t, c.DoAgain(t, http.MethodPut, id, Path(user, name), body, header))
}

// Receipt returns the receipt of a successful upload.
func Receipt(t testing.TB, r Response) (rec image.Receipt) {
	t.Helper()
	if r.Status != http.StatusCreated && r.Status != http.StatusOK {
		t.Fatalf("upload: status %d, %v, %s", r.Status, r.Err, r.Body)
	}
	if err := json.Unmarshal(r.Body, &rec); err != nil || !rec.Committed {
		t.Fatalf("receipt %s: %v", r.Body, err)
	}
	return rec
}

// ExpectImage expects to read exactly these bytes of an image through each of the nodes.
func (c *Cluster) ExpectImage(t testing.TB, user, name string, want []byte, ids ...image.NodeID) {
	t.Helper()
	for _, id := range ids {
		r := c.DoAgain(t, http.MethodGet, id, Path(user, name), nil, nil)
		if r.Status != http.StatusOK || r.Err != nil || !bytes.Equal(r.Body, want) {
			t.Errorf("%s/%s through node %d: status %d, %v, %d bytes of %d (%s)",
				user, name, id, r.Status, r.Err, len(r.Body), len(want), r.Problem.Detail)
		}
	}
}

// ExpectProblem expects a complete problem of the kind, with a hint, and Retry-After when it is temporary.
func ExpectProblem(t testing.TB, r Response, kind image.Kind) {
	t.Helper()
	p := r.Problem
	complete := p.Detail != "" && p.Title != "" && p.Type != ""
	if r.Status != kind.Status() || p.Status != r.Status || p.Code != kind || !complete {
		t.Errorf("want %d %s, got %d %v %s", kind.Status(), kind, r.Status, r.Err, r.Body)
	}
	if p.Hint == "" {
		t.Errorf("%s %q has no hint", kind, p.Detail)
	}
	if after := r.Header.Get("Retry-After"); kind.Temporary() != (after != "") {
		t.Errorf("%s with Retry-After %q", kind, after)
	}
}

// Status returns the cluster as a node sees it; the zero value when the node does not answer.
func (c *Cluster) Status(id image.NodeID) (s wire.ClusterStatus) {
	r := c.Do(http.MethodGet, id, "/v1/cluster", nil, nil)
	if r.Err == nil {
		json.Unmarshal(r.Body, &s) // a malformed one stays zero
	}
	return s
}

// List returns all images of a user as one node lists them.
func (c *Cluster) List(t testing.TB, id image.NodeID, user string) []wire.Info {
	t.Helper()
	var all []wire.Info
	after := ""
	for {
		path := "/v1/images/" + url.PathEscape(user) + "?after=" + url.QueryEscape(after)
		r := c.DoAgain(t, http.MethodGet, id, path, nil, nil)
		var page wire.List
		if err := json.Unmarshal(r.Body, &page); r.Status != http.StatusOK || err != nil {
			t.Fatalf("list of %s: status %d, %v, %s", user, r.Status, r.Err, r.Body)
		}
		all = append(all, page.Images...)
		if after = page.Next; after == "" {
			return all
		}
	}
}

// Conn is a connection to which a test writes any bytes.
type Conn struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

// Dial connects to a node's API. The connection is closed when t ends, and fails after Deadline.
func (c *Cluster) Dial(t testing.TB, id image.NodeID) *Conn {
	t.Helper()
	conn, err := net.Dial("tcp", c.Addr(id))
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(Deadline))
	t.Cleanup(func() { conn.Close() })
	conn = c.Secure(t, conn, id)
	return &Conn{Conn: conn, t: t, r: bufio.NewReader(conn)}
}

// Secure makes a connection to a node's API that of its administrator, where it is not plain HTTP.
func (c *Cluster) Secure(t testing.TB, conn net.Conn, id image.NodeID) net.Conn {
	t.Helper()
	config, err := clientTLS(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	if config == nil {
		return conn
	}
	config.ServerName = c.host(id).String()
	return tls.Client(conn, config)
}

// Send writes the parts, which may be strings or byte slices. A write error is not a failure: the node's
// answer says more.
func (c *Conn) Send(parts ...any) {
	for _, p := range parts {
		var err error
		switch p := p.(type) {
		case string:
			_, err = io.WriteString(c, p)
		case []byte:
			_, err = c.Write(p)
		default:
			c.t.Fatalf("cannot send a %T", p)
		}
		if err != nil {
			return
		}
	}
}

// Answer reads the next response.
func (c *Conn) Answer() Response {
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return Response{Err: err}
	}
	return ReadResponse(resp)
}

// Ended reads to the end of the connection, and reports whether the node closed it before Deadline.
func (c *Conn) Ended() bool {
	_, err := io.Copy(io.Discard, c.r)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}
