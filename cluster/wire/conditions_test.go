package wire

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"imgcluster/cluster/image"
)

func TestParseTags(t *testing.T) {
	for value, want := range map[string]image.Tags{
		"*": {"*"}, ` * `: {"*"}, `"a"`: {`"a"`}, `W/"a"`: {`W/"a"`}, `"a", "b"`: {`"a"`, `"b"`},
		`"a","b"`: {`"a"`, `"b"`}, `,"a",, W/"b" ,`: {`"a"`, `W/"b"`},
		`"a,b"`: {`"a,b"`}, `""`: {`""`}, "\"\xff!#~\"": {"\"\xff!#~\""}, `"*"`: {`"*"`},
	} {
		if got, err := parseTags(http.Header{"If-Match": {value}}, "If-Match"); err != nil ||
			!slices.Equal(got, want) {
			t.Errorf("%q: %q, %v", value, got, err)
		}
	}
	if got, err := parseTags(http.Header{"If-Match": {`"a"`, `"b"`}}, "If-Match"); err != nil ||
		!slices.Equal(got, image.Tags{`"a"`, `"b"`}) {
		t.Errorf("two lines: %q, %v", got, err)
	}
	if got, err := parseTags(http.Header{}, "If-Match"); err != nil || got != nil {
		t.Errorf("none: %q, %v", got, err)
	}
	for _, value := range []string{
		"", ",", "tag", `"a`, `a"`, `"a" "b"`, `"a"b`, `w/"a"`, `W/ "a"`, `W/a`, `"a", *`, `*, "a"`, `*,*`,
		`"a b"`, "\"a\tb\"", `"`, `W/"`, `W/`,
		strings.Repeat(`"a",`, tagsMax+1), `'a'`, `"a";"b"`,
	} {
		_, err := parseTags(http.Header{"If-Match": {value}}, "If-Match")
		expectInvalid(t, value, err)
	}
}

func FuzzParseTags(f *testing.F) {
	for _, seed := range []string{"*", `"a", W/"b"`, `,"",`, `W/"`, `"a" "b"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		tags, err := parseTags(http.Header{"If-Match": {value}}, "If-Match")
		if err != nil {
			expectInvalid(t, value, err)
			return
		}
		again, err := parseTags(http.Header{"If-Match": {strings.Join(tags, ", ")}}, "If-Match")
		if err != nil || len(tags) == 0 || len(tags) > tagsMax || !slices.Equal(tags, again) {
			t.Fatalf("%q: %q, again %q, %v", value, tags, again, err)
		}
	})
}
