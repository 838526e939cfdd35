package api

import (
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"

	"imgcluster/cluster/image"
)

// forwardedHeader names the node that passed a request on; such a request is not passed on again.
const forwardedHeader = "Imgcluster-Forwarded"

// forward passes a request for an image on to a node that holds its shard, where this one does not, and
// tells whether it answered.
func (h *Handler) forward(w http.ResponseWriter, r *http.Request, user, name string) bool {
	target, here := h.Node.Route(user, name)
	if here {
		return false
	}
	switch {
	case r.Header.Get("Imgcluster-Broadcast") != "":
		h.fail(w, r, image.Errorf(image.KindMisplaced, "node %d does not hold the shard of this image", h.ID).
			WithHint("broadcast to the nodes that GET /v1/cluster lists for the shard, or leave the header out"))
		return true
	case target == "" || r.Header.Get(forwardedHeader) != "":
		return false // Await says what is missing
	case r.ContentLength > h.ImageBytes:
		return false // refused here as well
	}
	proxy := httputil.ReverseProxy{
		Transport: h.Forward,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: target})
			p.Out.Header.Set(forwardedHeader, strconv.Itoa(int(h.ID)))
			for _, key := range browserFields { // they are of the client and this node, which has compared them
				p.Out.Header.Del(key)
			}
			if r.ContentLength != 0 {
				p.Out.Body = io.NopCloser(h.body(w, r))
			}
		},
		ModifyResponse: func(resp *http.Response) error {
			for key := range resp.Header { // each is said once, by the node that answers
				w.Header().Del(key)
			}
			resp.Body = &passedOn{ReadCloser: resp.Body, h: h, w: w}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			h.fail(w, r, image.Errorf(image.KindNoQuorum, "the node at %s, which holds the image's shard, does not answer: %w", target, err).
				WithHint("try again: another node that holds it is asked then"))
		},
		ErrorLog: h.errorLog,
	}
	proxy.ServeHTTP(w, r)
	return true
}

// elsewhere passes a request on that failed with err because the shard left this node meanwhile, and
// tells whether it answered. Nothing of its body may have been read.
func (h *Handler) elsewhere(w http.ResponseWriter, r *http.Request, user, name string, err error) bool {
	return image.KindOf(err) == image.KindNoQuorum && h.forward(w, r, user, name)
}

// passedOn gives the client time for every part of another node's answer.
type passedOn struct {
	io.ReadCloser
	h *Handler
	w http.ResponseWriter
}

func (p *passedOn) Read(b []byte) (int, error) {
	n, err := p.ReadCloser.Read(b)
	p.h.extend(p.w)
	p.h.tx.Add(int64(n))
	return n, err
}
