package wire

import (
	"net/url"
	"reflect"
	"testing"
)

func TestQueries(t *testing.T) {
	for want, q := range map[string]ListQuery{
		"": {}, "prefix=a%2F": {Prefix: "a/"},
		"after=%C3%A4&limit=3&prefix=b": {Prefix: "b", After: "ä", Limit: 3},
	} {
		v := q.Values()
		got, err := ParseList(v, 100)
		if q.Limit == 0 {
			q.Limit = 100
		}
		if err != nil || got != q || v.Encode() != want {
			t.Errorf("%s became %+v, %v; want %s", v.Encode(), got, err, want)
		}
	}
	if got, err := ParseList(ListQuery{Limit: 101}.Values(), 100); err != nil || got.Limit != 100 {
		t.Errorf("more than a page: %+v, %v", got, err)
	}
	for _, of := range []ShardQuery{{[]uint64{2}, "alice"}, {[]uint64{3, 1<<64 - 1, 0}, "bo b"}} {
		v := url.Values{}
		of.Set(v)
		if got, err := ParseShards(v); err != nil || !reflect.DeepEqual(got, of) {
			t.Errorf("%+v became %+v, %v", of, got, err)
		}
	}
	for want, q := range map[string]VerifyQuery{
		"sample=1&repair=false": {1, false}, "sample=0.01&repair=true": {0.01, true},
	} {
		v, err := url.ParseQuery(q.String())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseVerify(v); err != nil || got != q || q.String() != want {
			t.Errorf("%s became %+v, %v; want %s", q, got, err, want)
		}
	}
	if got, err := ParseVerify(nil); err != nil || got != (VerifyQuery{1, false}) {
		t.Errorf("by default %+v, %v", got, err)
	}
	if user, name, err := ParseName(NameQuery("a&b", "c/ä?.png")); err != nil || user != "a&b" ||
		name != "c/ä?.png" {
		t.Errorf("%q %q %v", user, name, err)
	}
	form, err := url.ParseQuery(EncryptedForm)
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := ParseForm(form, 200, 300); err != nil || got != FormEncrypted {
		t.Errorf("%v, %v", got, err)
	}
	if got, _, err := ParseForm(nil, 200, 300); err != nil || got != FormPlain {
		t.Errorf("by default %v, %v", got, err)
	}
	for size, want := range map[string]int{"": 200, "1": 1, "300": 300} {
		v := url.Values{"form": {"thumbnail"}, "size": {size}}
		if got, edge, err := ParseForm(v, 200, 300); err != nil || got != FormThumbnail || edge != want {
			t.Errorf("%v: %v, %d, %v", v, got, edge, err)
		}
	}
}

func TestBadQueries(t *testing.T) {
	list := func(v url.Values) error { _, err := ParseList(v, 100); return err }
	shards := func(v url.Values) error { _, err := ParseShards(v); return err }
	verify := func(v url.Values) error { _, err := ParseVerify(v); return err }
	form := func(v url.Values) error { _, _, err := ParseForm(v, 200, 300); return err }
	name := func(v url.Values) error { _, _, err := ParseName(v); return err }
	for _, x := range []struct {
		text string
		err  func(url.Values) error
	}{
		{"limit=0", list},
		{"limit=-1", list},
		{"limit=x", list},
		{"user=alice", shards},
		{"user=alice&shards=2,2", shards},
		{"user=alice&shards=2,", shards},
		{"shards=2", shards},
		{"sample=0", verify},
		{"sample=NaN", verify},
		{"sample=1.1", verify},
		{"repair=maybe", verify},
		{"form=thumbnail&size=0", form},
		{"form=thumbnail&size=301", form},
		{"form=thumbnail&size=x", form},
		{"form=plain", form},
		{"user=alice", name},
		{"name=a.png", name},
	} {
		v, err := url.ParseQuery(x.text)
		if err != nil {
			t.Fatal(err)
		}
		expectInvalid(t, x.text, x.err(v))
	}
}
