package wire

import (
	"net/http"
	"strings"
	"testing"

	"imgcluster/cluster/image"
)

func TestParseDigests(t *testing.T) {
	sum := strings.Repeat("A", 43) + "="
	other := strings.Repeat("B", 42) + "A="
	for _, header := range []http.Header{
		{"Content-Digest": {"sha-256=:" + sum + ":"}},
		{"Content-Digest": {"SHA-256=:" + sum + ":"}},
		{"Content-Digest": {"sha-512=:AAAA:, sha-256=:" + sum + ":"}},
		{"Content-Digest": {"sha-512=:AAAA:", " sha-256=:" + sum + ":"}},
		{"Repr-Digest": {"sha-256=:" + sum + ":"}},
		{"Repr-Digest": {"sha-256=:" + sum + ":"}, "Content-Digest": {"sha-256=:" + sum + ":"}},
	} {
		if got, err := ParseDigests(header); err != nil || got == nil || *got != (image.Digest{}) {
			t.Errorf("%q: %v, %v", header, got, err)
		}
	}
	if got, err := ParseDigests(http.Header{}); err != nil || got != nil {
		t.Errorf("none: %v, %v", got, err)
	}
	differ := http.Header{
		"Repr-Digest": {"sha-256=:" + sum + ":"}, "Content-Digest": {"sha-256=:" + other + ":"},
	}
	if _, err := ParseDigests(differ); image.KindOf(err) != image.KindDigest {
		t.Errorf("two that differ: %v", err)
	}
	for _, values := range [][]string{
		{""},
		{","},
		{"sha-256"},
		{"sha-256="},
		{"sha-256=::"},
		{"sha-256=:"},
		{"sha-256=" + sum},
		{"sha-256=:" + sum},
		{"sha-256=" + sum + ":"},
		{"sha-256=:AAAA:"},
		{"sha-256=:" + sum + sum + ":"},
		{"sha-256=:%%%%:"},
		{"nonsense"},
		{"=:AAAA:"},
		{"sha-256=:" + sum + ":", "sha-256=:AAAA:"},
		{"sha-256=:" + sum + ":,"},
		{"sha-512=:AAAA:"}, // nothing that is understood: it would not be compared
	} {
		for _, key := range DigestFields {
			_, err := ParseDigests(http.Header{key: values})
			expectInvalid(t, key+": "+strings.Join(values, " | "), err)
		}
	}
	for _, key := range []string{"Content-Md5", "Digest"} {
		_, err := ParseDigests(http.Header{
			key: {"1B2M2Y8AsgTpgAmY7PhCfg=="}, "Content-Digest": {"sha-256=:" + sum + ":"},
		})
		expectInvalid(t, key, err)
	}
}
