package api

import (
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync/atomic"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// unforwardedFields are of the client and this node, which has compared and checked them.
var unforwardedFields = append([]string{"Authorization"}, browserFields...)

// forward sends a request for an image on to a node that holds its shard, where this one does not, and
// reports whether it answered.
func (h *Handler) forward(w http.ResponseWriter, r *http.Request, user, name string) bool {
	target, here := h.Node.Route(user, name)
	if here {
		return false
	}
	switch {
	case r.Header.Get(wire.BroadcastField) != "":
		h.fail(w, r, image.Errorf(image.KindMisplaced, "node %d does not hold the shard of this image", h.ID).
			WithHint("broadcast to the nodes that GET /v1/cluster lists for the shard, "+
				"or leave the header out"))
		return true
	case target == 0 || r.Header.Get(wire.ForwardedField) != "":
		return false // Await returns what is missing
	case r.ContentLength < 0:
		h.fail(w, r, noLength())
		return true
	case r.ContentLength > h.ImageBytes:
		return false // refused here as well
	}
	if r.ContentLength > 0 {
		leave, err := h.enterUpload(r, h.forwards, user, h.body(w, r))
		if err != nil {
			h.fail(w, r, err)
			return true
		}
		defer leave()
	}
	var rest *body // what the other node did not wait for
	proxy := httputil.ReverseProxy{
		Transport: h.Forward,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "https", Host: wire.NodeHost(target)})
			p.Out.Header.Set(wire.ForwardedField, strconv.Itoa(int(h.ID)))
			for _, key := range unforwardedFields {
				p.Out.Header.Del(key)
			}
		},
		ModifyResponse: func(resp *http.Response) error {
			for key := range resp.Header { // each is set once, by the node that answers
				w.Header().Del(key)
			}
			rest = replyEarly(w, r)
			resp.Body = &countedReader{ReadCloser: resp.Body, count: &h.tx}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			h.fail(w, r, image.Errorf(image.KindNoQuorum,
				"node %d, which holds the image's shard, does not answer: %w", target, err).
				WithHint("try again: another node that holds it is asked then"))
		},
		ErrorLog: h.errorLog,
	}
	proxy.ServeHTTP(w, r)
	h.drain(w, r, rest)
	return true
}

// forwardMisplaced forwards a request that failed with err because the shard left this node meanwhile, and
// reports whether it answered. Nothing of its body may have been read.
func (h *Handler) forwardMisplaced(
	w http.ResponseWriter, r *http.Request, user, name string, err error,
) bool {
	return image.KindOf(err) == image.KindNoQuorum && h.forward(w, r, user, name)
}

// countedReader counts the body of another node's answer.
type countedReader struct {
	io.ReadCloser
	count *atomic.Int64
}

func (p *countedReader) Read(b []byte) (int, error) {
	n, err := p.ReadCloser.Read(b)
	p.count.Add(int64(n))
	return n, err
}

func noLength() error {
	return image.Errorf(image.KindLengthRequired, "no Content-Length").
		WithHint("send the length of the body in Content-Length; a pipe has none, save it to a file first")
}
