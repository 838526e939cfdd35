package image

import (
	"slices"
	"strings"
)

// Tags is the value of an If-Match or If-None-Match (RFC 9110, section 13.1): entity tags as they are
// sent, with their quotes and W/, or AnyTag alone. Nil: the condition is not asked.
type Tags []string

// AnyTag is met by every image.
const AnyTag = "*"

// meet reports whether one of t is among the tags of what is there. Those are all strong, so strong
// comparison is that of texts; weak comparison leaves W/ out.
func (t Tags) meet(tags []string, weak bool) bool {
	for _, tag := range t {
		if weak {
			tag = strings.TrimPrefix(tag, "W/")
		}
		if tag == AnyTag || slices.Contains(tags, tag) {
			return true
		}
	}
	return false
}

// Conditions are what must be at a name for a request to have its effect.
type Conditions struct {
	Match     Tags `json:"match,omitempty"`      // If-Match
	NoneMatch Tags `json:"none_match,omitempty"` // If-None-Match
}

// IsZero reports whether nothing is asked.
func (c Conditions) IsZero() bool { return c.Match == nil && c.NoneMatch == nil }

// Required returns a KindChanged when If-Match does not name what has these tags.
func (c Conditions) Required(tags []string) error {
	if c.Match == nil || c.Match.meet(tags, false) {
		return nil
	}
	return Errorf(KindChanged, "what is there is not what If-Match names").
		WithHint("look at what is there now; leave If-Match out, or give the ETag of that")
}

// Excluded reports whether If-None-Match names what has these tags.
func (c Conditions) Excluded(tags []string) bool { return c.NoneMatch.meet(tags, true) }

// Check evaluates the conditions of a change against the record that a name has, nil for none, in the
// order of RFC 9110, section 13.2.2. Its errors are a KindChanged or a KindExists.
func (c Conditions) Check(rec *Record) error {
	if rec == nil {
		if c.Match == nil {
			return nil
		}
		return Errorf(KindChanged, "there is no image, and If-Match asks for one").
			WithHint("leave If-Match out to store it all the same")
	}
	tags := rec.Tags()
	if err := c.Required(tags); err != nil {
		return err
	}
	if c.Excluded(tags) {
		return Errorf(KindExists, "an image named %q exists", rec.Name).
			WithHint("leave out If-None-Match to go on all the same")
	}
	return nil
}

// ETag is the tag that an image is sent with: its digest's, or where it has none its upload ID's.
func (r *Record) ETag() string {
	tags := r.Tags()
	return tags[len(tags)-1]
}

// Tags are the entity tags that stand for the record's bytes: that of its upload ID, which no other
// bytes ever have, and that of its digest if it has one.
func (r *Record) Tags() []string {
	tags := []string{`"` + r.ID.String() + `"`}
	if r.SHA256 != nil {
		tags = append(tags, `"`+r.SHA256.String()+`"`)
	}
	return tags
}
