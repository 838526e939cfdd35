package wire

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"

	"imgcluster/cluster/image"
)

// DigestFields are the header fields that may hold a digest of the body; ParseDigests reads those of a PUT.
var DigestFields = []string{"Content-Digest", "Repr-Digest", "Content-Md5", "Digest"}

// SetDigest sets the digest that the body must have.
func SetDigest(h http.Header, sum image.Digest) {
	h.Set("Content-Digest", "sha-256=:"+base64.StdEncoding.EncodeToString(sum[:])+":")
}

// ParseDigests returns the SHA-256 that a body must have by its Content-Digest or Repr-Digest (RFC 9530),
// which are of the same bytes here, nil when neither is sent. Other algorithms may stand beside it.
func ParseDigests(header http.Header) (sum *image.Digest, err error) {
	for _, key := range DigestFields {
		values := header[key]
		if values == nil {
			continue
		}
		if key == "Content-Md5" || key == "Digest" {
			return nil, image.Errorf(image.KindInvalid, "%s is not compared", key).
				WithHint("send Content-Digest: sha-256=:BASE64:")
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
			return nil, image.Errorf(image.KindInvalid, "malformed %s %.80q", key, member).
				WithHint("send sha-256=:BASE64:")
		}
		if isSHA256 {
			sum = (*image.Digest)(raw)
		}
	}
	if sum == nil {
		return nil, image.Errorf(image.KindInvalid, "%s has no sha-256", key).
			WithHint("send sha-256=:BASE64:, beside others if you like")
	}
	return sum, nil
}

// WantsDigest reports whether Want-Content-Digest (RFC 9530) asks for a SHA-256.
func WantsDigest(h http.Header) bool {
	for member := range strings.SplitSeq(h.Get(wantDigestField), ",") {
		algorithm, weight, _ := strings.Cut(strings.TrimSpace(member), "=")
		if strings.EqualFold(algorithm, "sha-256") && weight != "0" {
			return true
		}
	}
	return false
}
