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

// Sealed returns the conditions as the log may have them: a tag that is a digest's is replaced by that of the
// sealed digest. A tag that is in the log already stays as it is.
func (c Conditions) Sealed(seal func(Digest) (SealedDigest, error)) (sealed Conditions, err error) {
	if sealed.Match, err = c.Match.sealed(seal); err == nil {
		sealed.NoneMatch, err = c.NoneMatch.sealed(seal)
	}
	return sealed, err
}

func (t Tags) sealed(seal func(Digest) (SealedDigest, error)) (Tags, error) {
	sealed := slices.Clone(t)
	for i, tag := range t {
		var d Digest
		strong := strings.TrimPrefix(tag, "W/")
		if len(strong) < 2 || d.UnmarshalText([]byte(strong[1:len(strong)-1])) != nil {
			continue
		}
		s, err := seal(d)
		if err != nil {
			return nil, err
		}
		sealed[i] = strings.TrimSuffix(tag, strong) + s.tag()
	}
	return sealed, nil
}

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
	if r.SHA256 != nil {
		return `"` + r.SHA256.String() + `"`
	}
	return `"` + r.ID.String() + `"`
}

// Tags are the entity tags that stand for the record's bytes: that of its upload ID, which no other
// bytes ever have, and those of its digest if it has one, to clients and in the log.
func (r *Record) Tags() []string {
	tags := []string{`"` + r.ID.String() + `"`}
	if r.SHA256 != nil {
		tags = append(tags, r.ETag())
	}
	if r.Sealed != nil {
		tags = append(tags, r.Sealed.tag())
	}
	return tags
}
