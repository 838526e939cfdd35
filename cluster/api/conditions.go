package api

import (
	"net/http"
	"strings"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// What a client asks of a request beyond its effect, preconditions and digests, is honoured or refused,
// never skipped: who asks for a check relies on it.
//
// Images have no date that is exact to an upload (created is the clock of one node at the beginning of
// one), so no Last-Modified is sent. What asks by date is answered so that it is right without one:
// If-Modified-Since and a date in If-Range with the whole image, If-Unmodified-Since with 412.

// conditionFields are the preconditions of RFC 9110, section 13.1, and the methods that evaluate them.
// What else begins with If- is refused.
var conditionFields = map[string]func(method string) bool{
	"If-Match":            func(string) bool { return true },
	"If-None-Match":       func(string) bool { return true },
	"If-Modified-Since":   isRead,
	"If-Unmodified-Since": func(string) bool { return true },
	"If-Range":            isRead, // see rangesOf
}

func isRead(method string) bool { return method == http.MethodGet || method == http.MethodHead }

// conditionsOf reads the preconditions of a request. One that would have to be skipped is an error, and
// so is a digest of a body that nothing compares.
func conditionsOf(r *http.Request) (c image.Conditions, err error) {
	for key := range r.Header {
		if key != "If" && !strings.HasPrefix(key, "If-") {
			continue
		}
		if evaluates := conditionFields[key]; evaluates == nil || !evaluates(r.Method) {
			return c, image.Errorf(image.KindInvalid, "%.40s with %.20s is not understood", key, r.Method).
				WithHint("leave it out; If-Match and If-None-Match with an ETag are understood everywhere")
		}
	}
	if r.Method != http.MethodPut {
		for _, key := range wire.DigestFields {
			if r.Header[key] != nil {
				return c, image.Errorf(image.KindInvalid,
					"%s with %.20s: nothing is compared with it", key, r.Method).
					WithHint("leave it out; the digest of an image's bytes is compared at PUT")
			}
		}
	}
	c, err = wire.ParseConditions(r.Header)
	if err == nil && c.Match == nil && r.Header["If-Unmodified-Since"] != nil { // If-Match goes before it
		err = image.Errorf(image.KindChanged,
			"If-Unmodified-Since: an image's date is not exact, it may have changed since then").
			WithHint("send If-Match with the image's ETag instead")
	}
	return c, err
}

// conditional evaluates the preconditions of a request for what has no tags, such as a list, and reports
// whether the request is to go on.
func (h *Handler) conditional(w http.ResponseWriter, r *http.Request) bool {
	c, err := conditionsOf(r)
	if err == nil {
		err = c.Required(nil)
	}
	switch {
	case err != nil:
	case !c.Excluded(nil):
		return true
	case isRead(r.Method):
		w.WriteHeader(http.StatusNotModified)
		return false
	default:
		err = image.Errorf(image.KindExists, "If-None-Match excludes what is there").WithHint("leave it out")
	}
	h.fail(w, r, err)
	return false
}
