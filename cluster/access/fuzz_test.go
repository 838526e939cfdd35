package access

import (
	"net/http"
	"strings"
	"testing"

	"imgcluster/cluster/image"
)

// FuzzAuthorization reads any field: it is no key, or one that is written and read back; and what is refused
// is not quoted.
func FuzzAuthorization(f *testing.F) {
	id, secret := "ICABCDEFGHIJKLMNOP23", strings.Repeat("aB-_9", 8)
	bearer, basic := http.Header{}, &http.Request{Header: http.Header{}}
	Credentials{id, NewSecret(secret)}.Authorize(bearer)
	basic.SetBasicAuth(id, secret)
	for _, field := range []string{
		bearer.Get("Authorization"), basic.Header.Get("Authorization"), "bearer  " + id + "." + secret,
		"Bearer " + id + ".", "Bearer ." + secret, "Basic !", "Basic " + strings.Repeat("A", authorizationMax),
		"Digest username=x", "", " ",
	} {
		f.Add(field)
	}
	f.Fuzz(func(t *testing.T, field string) {
		id, secret, ok, err := ParseAuthorization(http.Header{"Authorization": {field}})
		if err != nil {
			_, value, _ := strings.Cut(field, " ")
			text := err.Error() + image.HintOf(err)
			if image.KindOf(err) != image.KindUnauthorized || len(value) > 8 && strings.Contains(text, value) {
				t.Fatalf("%q: %v", field, err)
			}
			return
		}
		c, err := NewCredentials(id, secret)
		if !ok || err != nil {
			return
		}
		h := http.Header{}
		c.Authorize(h)
		id2, secret2, _, err := ParseAuthorization(h)
		if id2 != id || secret2 != secret || err != nil {
			t.Fatalf("%q is %q and %q, then %q and %q, %v", field, id, secret, id2, secret2, err)
		}
	})
}
