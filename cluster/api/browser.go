package api

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"imgcluster/cluster/image"
)

// crossOrigin finds requests that may change something and that a page of another site has made a browser
// send, by Sec-Fetch-Site, or by Origin and Host.
var crossOrigin = http.NewCrossOriginProtection()

// browserFields are the header fields that crossOrigin compares, beside Host.
var browserFields = []string{"Origin", "Sec-Fetch-Site"}

// checkBrowser refuses a request that would change something and that a page of another site has made the
// browser send, or one whose name was made to lead here, see checkHost.
func (h *Handler) checkBrowser(r *http.Request) error {
	if crossOrigin.Check(r) != nil {
		return image.Errorf(image.KindForbidden, "%.20s comes from a page of another site", r.Method).
			WithHint("send it from a program, or from a page of this node")
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return nil // where nobody needs a key, admit checks the host
	}
	return h.checkHost(r)
}

// checkHost refuses a request of a page whose name was made to lead here (DNS rebinding). It has one origin
// with the node, so that it reads the answers too, and gives itself away by that name: only names that are a
// node's own count, and addresses, which nobody else can have.
func (h *Handler) checkHost(r *http.Request) error {
	host := hostOf(r.Host)
	if _, err := netip.ParseAddr(host); err == nil || host == "" || host == "localhost" ||
		h.HostAllowed(host) {
		return nil
	}
	return image.Errorf(image.KindForbidden,
		"%.20s is sent to the host %.80q, which is not a node's name", r.Method, host).
		WithHint("use the node's address, or list the name in node.host_names of its configuration")
}

// hostOf is the name or address in a Host header, in lower case.
func hostOf(s string) string {
	if host, _, err := net.SplitHostPort(s); err == nil {
		s = host
	} else {
		s = strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	}
	return strings.ToLower(strings.TrimSuffix(s, "."))
}

// protect has a browser that is shown an image, or what was stored as one, run nothing of it, keep it
// only as long as its tag is the same, and save it unless it is pixels.
func protect(header http.Header, contentType, name string) {
	header.Set("Content-Type", contentType)
	header.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	header.Set("Cache-Control", "private, no-cache")
	if !image.IsRaster(contentType) {
		header.Set("Content-Disposition", attachment(name))
	}
}
