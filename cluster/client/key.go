package client

import (
	"net/http"
	"net/netip"

	"imgcluster/cluster/image"
)

// authorize adds the client's access key to a request. The key never goes in clear to another host.
func (c *Client) authorize(req *http.Request) error {
	if c.o.Key.None() {
		return nil
	}
	if req.URL.Scheme != "https" && !loopback(req.URL.Hostname()) {
		return image.Errorf(image.KindInvalid, "the access key is not sent to %s without TLS", req.URL.Host).
			WithHint("use TLS: leave security.insecure out of the configuration")
	}
	c.o.Key.Authorize(req.Header)
	return nil
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return host == "localhost"
	}
	return addr.Unmap().IsLoopback()
}
