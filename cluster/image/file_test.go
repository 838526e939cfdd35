package image_test

import (
	"encoding/json"
	"strings"
	"testing"

	"imgcluster/cluster/image"
)

func TestAttempts(t *testing.T) {
	seen := map[image.Attempt]bool{}
	for range 10_000 {
		a := image.NewAttempt()
		if seen[a] || a.IsZero() {
			t.Fatalf("%v was drawn before", a)
		}
		seen[a] = true
	}
	c := image.Copy{Node: 1, Attempt: image.Attempt{0x0a, 15: 0xff}, Key: 7}
	b, err := json.Marshal(c)
	want := `{"node":1,"attempt":"0a0000000000000000000000000000ff","key":7}`
	if err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
	var got image.Copy
	if err := json.Unmarshal(b, &got); err != nil || got != c {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{
		"", "1", strings.Repeat("0", 32), strings.Repeat("g", 32), strings.Repeat("1", 34),
	} {
		if err := new(image.Attempt).UnmarshalText([]byte(bad)); image.KindOf(err) != image.KindInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestFileIDs(t *testing.T) {
	const text = "0190b6a0-7c1e-7cc0-a1f4-5d6e7f8091a2-13-0a0000000000000000000000000000ff"
	f, err := image.ParseFileID(text)
	if err != nil || f.String() != text || f.Shard != 13 || f.Attempt != (image.Attempt{0x0a, 15: 0xff}) {
		t.Fatalf("%+v, %v", f, err)
	}
	rec := image.Record{ID: f.Image, Shard: 13}
	if got := rec.File(image.Copy{Node: 1, Attempt: f.Attempt}); got != f {
		t.Errorf("%v", got)
	}
	for _, bad := range []string{
		"", text[:36], text[:37], text[:39], text[:40], text + "0", text + "-1", strings.ToUpper(text),
		strings.Replace(text, "-13-", "-013-", 1), strings.Replace(text, "-13-", "-+13-", 1),
		strings.Replace(text, "-13-", "--1-", 1), strings.Replace(text, "-13-", "-18446744073709551616-", 1),
		strings.Replace(text, "0a0", "0A0", 1), "00000000-0000-0000-0000-000000000000" + text[36:],
		text[:40] + strings.Repeat("0", 32),
	} {
		if f, err := image.ParseFileID(bad); image.KindOf(err) != image.KindInvalid || f != (image.FileID{}) {
			t.Errorf("%q was read as %v, %v", bad, f, err)
		}
	}
}
