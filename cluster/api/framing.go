package api

import (
	"net/http"
	"slices"
	"strings"

	"imgcluster/cluster/image"
)

// hopFields are what a Connection field may name.
var hopFields = []string{"", "close", "keep-alive", "te", "upgrade", "http2-settings"}

// checkFraming refuses a request that a proxy, or a node that forwards it, would pass on without a field
// that it is meant to obey: Connection names the fields that are for one hop. It closes the connection after
// a body in chunks: net/http takes a Content-Length beside these away without a word, and whoever is in front
// of the node may have gone by that, and sees another request in the rest.
func checkFraming(w http.ResponseWriter, r *http.Request) error {
	if len(r.TransferEncoding) > 0 {
		w.Header().Set("Connection", "close")
	}
	for _, list := range r.Header["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			if !slices.Contains(hopFields, strings.ToLower(strings.TrimSpace(name))) {
				return image.Errorf(image.KindInvalid, "Connection names the field %.40q", name).
					WithHint("send the field without naming it there")
			}
		}
	}
	return nil
}
