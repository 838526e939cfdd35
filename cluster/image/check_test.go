package image_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"imgcluster/cluster/image"
)

func TestCheckText(t *testing.T) {
	rec := image.Record{
		ID: image.NewID(), Check: image.Check{Key: 7, MAC: image.MAC{0xab, 15: 1}},
		Sealed: &image.SealedDigest{0xcd, 47: 2}, SHA256: &image.Digest{0xee},
	}
	b, err := json.Marshal(rec)
	mac := "ab" + strings.Repeat("0", 29) + "1"
	if err != nil || !strings.Contains(string(b), `"check":{"key":7,"mac":"`+mac+`"}`) {
		t.Errorf("%s, %v", b, err)
	}
	if strings.Contains(string(b), "ee000") || strings.Contains(string(b), "SHA") {
		t.Errorf("a stored record has its digest in clear: %s", b)
	}
	var got image.Record
	if err := json.Unmarshal(b, &got); err != nil || got.Check != rec.Check || *got.Sealed != *rec.Sealed {
		t.Errorf("%+v, %v", got, err)
	}
	if err := new(image.MAC).UnmarshalText([]byte("ab")); err == nil {
		t.Error("a MAC of one byte")
	}
	if err := new(image.SealedDigest).UnmarshalText([]byte(strings.Repeat("g", 96))); err == nil {
		t.Error("a sealed digest of other characters")
	}
}

// TestSealedConditions: the log has no digest of a condition in clear, and decides with the sealed ones as a
// reader's record decides with those.
func TestSealedConditions(t *testing.T) {
	digest := image.Digest{1, 2, 3}
	sealed := image.SealedDigest{4, 5, 6}
	seal := func(d image.Digest) (image.SealedDigest, error) {
		if d != digest {
			return image.SealedDigest{9}, nil
		}
		return sealed, nil
	}
	id := image.NewID()
	inLog := &image.Record{ID: id, Sealed: &sealed}
	shown := &image.Record{ID: id, Sealed: &sealed, SHA256: &digest}
	for _, tag := range []string{
		`"` + digest.String() + `"`, `W/"` + digest.String() + `"`, `"` + image.Digest{8}.String() + `"`,
		`"` + id.String() + `"`, `"other"`, "*", `"`, `""`, `W/""`,
	} {
		for _, c := range []image.Conditions{
			{Match: image.Tags{tag}}, {NoneMatch: image.Tags{`"x"`, tag}},
		} {
			s, err := c.Sealed(seal)
			if err != nil || strings.Contains(strings.Join(append(s.Match, s.NoneMatch...), ""), digest.String()) {
				t.Errorf("%+v became %+v, %v", c, s, err)
			}
			want, got := c.Check(shown), s.Check(inLog)
			if image.KindOf(want) != image.KindOf(got) {
				t.Errorf("%+v: %v, and in the log %v", c, want, got)
			}
			again, err := s.Sealed(seal)
			if err != nil || !slices.Equal(again.Match, s.Match) || !slices.Equal(again.NoneMatch, s.NoneMatch) {
				t.Errorf("%+v sealed again is %+v, %v", s, again, err)
			}
		}
	}
	if shown.ETag() != `"`+digest.String()+`"` || inLog.ETag() != `"`+id.String()+`"` {
		t.Errorf("tags %s and %s", shown.ETag(), inLog.ETag())
	}
	none := image.Conditions{}
	if s, err := none.Sealed(seal); err != nil || !s.IsZero() {
		t.Errorf("%+v, %v", s, err)
	}
	bad := errors.New("no key")
	fails := func(image.Digest) (image.SealedDigest, error) { return sealed, bad }
	if _, err := (image.Conditions{Match: image.Tags{`"` + digest.String() + `"`}}).Sealed(fails); err != bad {
		t.Error(err)
	}
}
