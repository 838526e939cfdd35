package apicheck

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"strings"
	"testing"

	"imgcluster/cluster/wire"
)

// documentBytesMax bounds the body of an answer that is checked.
const documentBytesMax = 4 << 20

// Transport returns base, and has every exchange checked that goes through it. What differs from the document
// fails the test. An answer's document is checked once it was read to its end.
func (d *Document) Transport(t testing.TB, base http.RoundTripper) http.RoundTripper {
	return &transport{t, d, base}
}

type transport struct {
	t    testing.TB
	d    *Document
	base http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (p *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	x := exchange{req: req}
	if req.GetBody != nil && isDocument(req.Header) {
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		x.asked, err = io.ReadAll(body)
		if err != nil {
			return nil, err
		}
	}
	resp, err := p.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	x.status, x.header = resp.StatusCode, resp.Header
	if req.Method == http.MethodHead || !isDocument(resp.Header) {
		p.check(x)
		return resp, nil
	}
	resp.Body = &checkedBody{ReadCloser: resp.Body, done: func(body []byte) {
		x.body, x.hasBody = body, true
		p.check(x)
	}}
	return resp, nil
}

// CloseIdleConnections closes those of base.
func (p *transport) CloseIdleConnections() {
	if c, ok := p.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func (p *transport) check(x exchange) {
	p.t.Helper()
	if err := p.d.check(x); err != nil {
		p.t.Errorf("%s %.200s, %d: %.2000v", x.req.Method, x.req.URL.RequestURI(), x.status, err)
	}
}

// isDocument reports whether a body is JSON.
func isDocument(header http.Header) bool {
	media, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	return err == nil && (media == wire.DocumentType || strings.HasSuffix(media, "+json"))
}

// checkedBody calls done with all that was read of it, at its end.
type checkedBody struct {
	io.ReadCloser
	read bytes.Buffer
	done func([]byte)
}

func (b *checkedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.read.Len() <= documentBytesMax {
		b.read.Write(p[:n])
	}
	if err == io.EOF && b.done != nil && b.read.Len() <= documentBytesMax {
		b.done(b.read.Bytes())
		b.done = nil
	}
	return n, err
}

func readAgain(body []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(body)) }
