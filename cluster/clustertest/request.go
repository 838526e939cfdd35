package clustertest

import (
	"bufio"
	"bytes"
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

// Response is an answer, read to its end. Status is 0 when there was none: then Err says why.
type Response struct {
	Status  int
	Header  http.Header
	Body    []byte
	Problem image.Problem // of an application/problem+json answer
	Err     error
}

// Do sends one request to one node. path is as in the request line, with a query if there is one.
func (c *Cluster) Do(method string, id image.NodeID, path string, body io.Reader, header http.Header) Response {
	req, err := http.NewRequest(method, "http://"+c.Addr(id)+path, body)
	if err != nil {
		return Response{Err: err}
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if n := header.Get("Content-Length"); n == "-1" { // a body whose length is not told
		req.ContentLength = -1
		req.Header.Del("Content-Length")
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return Response{Err: err}
	}
	return ReadResponse(resp)
}

// ReadResponse reads an answer to its end.
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

// Path is the path of an image in the API.
func Path(user, name string) string {
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return "/v1/images/" + url.PathEscape(user) + "/" + strings.Join(parts, "/")
}

// DoAgain is Do as a client does it: while the node says that there is no quorum, which on a busy
// machine may be an election too long, it asks again.
func (c *Cluster) DoAgain(t testing.TB, method string, id image.NodeID, path string, body []byte, header http.Header) (r Response) {
	t.Helper()
	Poll(t, "a quorum", func() bool {
		r = c.Do(method, id, path, bytes.NewReader(body), header)
		return r.Problem.Code != image.KindNoQuorum
	})
	return r
}

// Put stores an image through one node and returns its receipt.
func (c *Cluster) Put(t testing.TB, id image.NodeID, user, name string, body []byte, header http.Header) image.Receipt {
	t.Helper()
	return Receipt(t, c.DoAgain(t, http.MethodPut, id, Path(user, name), body, header))
}

// Receipt reads the receipt of an upload that went well.
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

// ExpectImage reads an image back through each of the nodes and compares every byte.
func (c *Cluster) ExpectImage(t testing.TB, user, name string, want []byte, ids ...image.NodeID) {
	t.Helper()
	for _, id := range ids {
		r := c.DoAgain(t, http.MethodGet, id, Path(user, name), nil, nil)
		if r.Status != http.StatusOK || r.Err != nil || !bytes.Equal(r.Body, want) {
			t.Errorf("%s/%s through node %d: status %d, %v, %d bytes of %d (%s)", user, name, id, r.Status, r.Err, len(r.Body), len(want), r.Problem.Detail)
		}
	}
}

// ExpectProblem checks that a request was refused in the form that clients are promised.
func ExpectProblem(t testing.TB, r Response, kind image.Kind) {
	t.Helper()
	p := r.Problem
	if r.Status != kind.Status() || p.Status != r.Status || p.Code != kind || p.Detail == "" || p.Title == "" || p.Type == "" {
		t.Errorf("want %d %s, got %d %v %s", kind.Status(), kind, r.Status, r.Err, r.Body)
	}
	if p.Hint == "" {
		t.Errorf("%s %q has no hint", kind, p.Detail)
	}
	if after := r.Header.Get("Retry-After"); kind.Temporary() != (after != "") {
		t.Errorf("%s with Retry-After %q", kind, after)
	}
}

// Status is the cluster as a node sees it, nothing when it does not answer.
func (c *Cluster) Status(id image.NodeID) (s wire.ClusterStatus) {
	r := c.Do(http.MethodGet, id, "/v1/cluster", nil, nil)
	if r.Err == nil {
		json.Unmarshal(r.Body, &s) // malformed is nothing, too
	}
	return s
}

// List returns all images of a user as one node lists them.
func (c *Cluster) List(t testing.TB, id image.NodeID, user string) []wire.Info {
	t.Helper()
	var all []wire.Info
	after := ""
	for {
		r := c.DoAgain(t, http.MethodGet, id, "/v1/images/"+url.PathEscape(user)+"?after="+url.QueryEscape(after), nil, nil)
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

// Conn is a connection on which a test writes what it likes.
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
	return &Conn{Conn: conn, t: t, r: bufio.NewReader(conn)}
}

// Send writes the parts, which may be strings or byte slices. That the node no longer takes them is
// no failure: its answer tells more.
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

// Ended reads on to the end of the connection, and tells whether the node ended it before Deadline.
func (c *Conn) Ended() bool {
	_, err := io.Copy(io.Discard, c.r)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}
