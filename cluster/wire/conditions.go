package wire

import (
	"net/http"
	"strings"

	"imgcluster/cluster/image"
)

// SetConditions sets the preconditions of a request (RFC 9110, section 13.1).
func SetConditions(h http.Header, c image.Conditions) {
	if c.Match != nil {
		h.Set("If-Match", strings.Join(c.Match, ", "))
	}
	if c.NoneMatch != nil {
		h.Set("If-None-Match", strings.Join(c.NoneMatch, ", "))
	}
}

// ParseConditions reads If-Match and If-None-Match.
func ParseConditions(h http.Header) (c image.Conditions, err error) {
	if c.Match, err = parseTags(h, "If-Match"); err == nil {
		c.NoneMatch, err = parseTags(h, "If-None-Match")
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
			WithHint("send the image's ETag, several of them with commas between, or *; " +
				"a tag has quotes around it")
	}
	var tags image.Tags
	for rest != "" {
		if rest[0] == ',' { // lists may have empty elements
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
