package api

import (
	"mime"
	"net/http"
	"path"
	"strings"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// parseType returns the Content-Type that an upload is to be kept with, empty when its client did not
// set one: what curl --data-binary sends unasked counts as none.
func parseType(header http.Header) (string, error) {
	values := header["Content-Type"]
	if len(values) == 0 {
		return "", nil
	}
	v := strings.Trim(values[0], " \t")
	media, _, err := mime.ParseMediaType(v)
	kind, sub, slash := strings.Cut(media, "/")
	ascii := !strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' })
	if len(values) > 1 || err != nil || !slash || kind == "" || sub == "" || !ascii ||
		len(v) > image.TypeBytesMax {
		return "", image.Errorf(image.KindInvalid,
			"malformed Content-Type: %.80q", strings.Join(values, ", ")).
			WithHint("send one such as image/jpeg, or none: then the name's ending decides")
	}
	switch media {
	case "application/x-www-form-urlencoded":
		return "", nil
	case "multipart/form-data":
		return "", image.Errorf(image.KindMedia, "the body is a form, not an image").
			WithHint("send the file itself as the body: curl -T FILE URL")
	}
	return v, nil
}

// checkJSON refuses a body that is not called JSON: what a browser sends to another site unasked never is.
func checkJSON(r *http.Request) error {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != wire.DocumentType {
		return image.Errorf(image.KindMedia,
			"the body's Content-Type is %.40q", r.Header.Get("Content-Type")).
			WithHint("send Content-Type: application/json")
	}
	return nil
}

// attachment is the Content-Disposition (RFC 6266) under which a browser saves an image. Where the name
// is more than plain ASCII it is given twice, the second time encoded (RFC 8187).
func attachment(name string) string {
	plain := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || strings.ContainsRune(`"\/%`, r) {
			return '_'
		}
		return r
	}, path.Base(name))
	v := `attachment; filename="` + plain + `"`
	if plain == path.Base(name) {
		return v
	}
	return v + "; filename*=UTF-8''" + extValue(path.Base(name))
}

// extValue is the value-chars of RFC 8187.
func extValue(s string) string {
	const plain = "!#$&+-.^_`|~"
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case c >= '0' && c <= '9',
			c >= 'A' && c <= 'Z',
			c >= 'a' && c <= 'z',
			strings.IndexByte(plain, c) >= 0:
			b.WriteByte(c)
		default:
			const hex = "0123456789ABCDEF"
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}
