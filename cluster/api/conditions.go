package api

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"

	"imgcluster/cluster/image"
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

// digestFields say what the bytes are to hash to; those of a PUT are in parseDigests.
var digestFields = []string{"Content-Digest", "Repr-Digest", "Content-Md5", "Digest"}

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
		for _, key := range digestFields {
			if r.Header[key] != nil {
				return c, image.Errorf(image.KindInvalid, "%s with %.20s: nothing is compared with it", key, r.Method).
					WithHint("leave it out; the digest of an image's bytes is compared at PUT")
			}
		}
	}
	if c.Match, err = parseTags(r.Header, "If-Match"); err == nil {
		c.NoneMatch, err = parseTags(r.Header, "If-None-Match")
	}
	if err == nil && c.Match == nil && r.Header["If-Unmodified-Since"] != nil { // If-Match goes before it
		err = image.Errorf(image.KindChanged, "If-Unmodified-Since: an image's date is not exact, it may have changed since then").
			WithHint("send If-Match with the image's ETag instead")
	}
	return c, err
}

// tagsMax bounds the entity tags of one precondition.
const tagsMax = 64

// parseTags reads the list of an If-Match or If-None-Match, nil when there is none.
func parseTags(header http.Header, key string) (image.Tags, error) {
	values := header[key]
	if values == nil {
		return nil, nil
	}
	rest := strings.Trim(strings.Join(values, ","), " \t")
	if rest == image.AnyTag {
		return image.Tags{image.AnyTag}, nil
	}
	bad := func() error {
		return image.Errorf(image.KindInvalid, "malformed %s: %.80q", key, strings.Join(values, ",")).
			WithHint(`send the image's ETag, several of them with commas between, or *; a tag has quotes around it`)
	}
	var tags image.Tags
	for rest != "" {
		if rest[0] == ',' { // lists may have empty places
			rest = strings.TrimLeft(rest[1:], " \t")
			continue
		}
		tag, after, ok := cutTag(rest)
		after = strings.TrimLeft(after, " \t")
		if !ok || after != "" && after[0] != ',' || len(tags) == tagsMax {
			return nil, bad()
		}
		tags, rest = append(tags, tag), after
	}
	if tags == nil {
		return nil, bad()
	}
	return tags, nil
}

// cutTag cuts an entity tag (RFC 9110, section 8.8.3) off the beginning of s.
func cutTag(s string) (tag, rest string, ok bool) {
	start := 0
	if strings.HasPrefix(s, "W/") {
		start = 2
	}
	if !strings.HasPrefix(s[start:], `"`) {
		return "", s, false
	}
	for i := start + 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return s[:i+1], s[i+1:], true
		case c <= ' ' || c == 0x7f:
			return "", s, false
		}
	}
	return "", s, false
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

// parseDigests returns the SHA-256 that a body must have by its Content-Digest or Repr-Digest (RFC 9530),
// which are of the same bytes here, nil when neither is sent. Other algorithms may stand beside it.
func parseDigests(header http.Header) (sum *image.Digest, err error) {
	for _, key := range digestFields {
		values := header[key]
		if values == nil {
			continue
		}
		if key == "Content-Md5" || key == "Digest" {
			return nil, image.Errorf(image.KindInvalid, "%s is not compared", key).WithHint("send Content-Digest: sha-256=:BASE64:")
		}
		one, err := parseDigest(key, values)
		if err != nil {
			return nil, err
		}
		if sum != nil && *sum != *one {
			return nil, image.Errorf(image.KindDigest, "Content-Digest and Repr-Digest differ").
				WithHint("both are of the bytes that are sent; send one of them")
		}
		sum = one
	}
	return sum, nil
}

// parseDigest finds the sha-256 in a Content-Digest or Repr-Digest.
func parseDigest(key string, values []string) (sum *image.Digest, err error) {
	for member := range strings.SplitSeq(strings.Join(values, ","), ",") {
		member = strings.Trim(member, " \t")
		algorithm, value, _ := strings.Cut(member, "=")
		inner, opened := strings.CutPrefix(value, ":")
		inner, closed := strings.CutSuffix(inner, ":")
		raw, err := base64.StdEncoding.DecodeString(inner)
		isSHA256 := strings.EqualFold(algorithm, "sha-256")
		if err != nil || algorithm == "" || !opened || !closed || isSHA256 && len(raw) != sha256.Size {
			return nil, image.Errorf(image.KindInvalid, "malformed %s %.80q", key, member).WithHint("send sha-256=:BASE64:")
		}
		if isSHA256 {
			sum = (*image.Digest)(raw)
		}
	}
	if sum == nil {
		return nil, image.Errorf(image.KindInvalid, "%s has no sha-256", key).WithHint("send sha-256=:BASE64:, beside others if you like")
	}
	return sum, nil
}
