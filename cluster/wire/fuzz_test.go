package wire

import (
	"net/url"
	"testing"
	"unicode/utf8"

	"imgcluster/cluster/image"
)

// FuzzQueries reads any query: what is taken keeps to its limits, and is what is written again.
func FuzzQueries(f *testing.F) {
	for _, query := range []string{
		"prefix=a&after=b&limit=7&user=alice", "form=encrypted", "sample=0.5&repair=true", "sample=NaN", "limit=0",
		"user=alice&name=a%2Fb.png", "shards=2,3,4&user=alice", "shards=2,2", "sample=1e-400", "limit=99999999999",
	} {
		f.Add(query)
	}
	const pageMax = 1000
	f.Fuzz(func(t *testing.T, query string) {
		v, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		refused := func(err error) bool {
			if err != nil && (image.KindOf(err) != image.KindInvalid || image.HintOf(err) == "" ||
				!utf8.ValidString(err.Error()) || len(err.Error()) > 4<<10) {
				t.Fatalf("%q: %v", query, err)
			}
			return err != nil
		}
		if q, err := ParseList(v, pageMax); !refused(err) {
			again, err := ParseList(q.Values(), pageMax)
			if q.Limit < 1 || q.Limit > pageMax || again != q || err != nil {
				t.Fatalf("%q: %+v, %+v, %v", query, q, again, err)
			}
		}
		if q, err := ParseVerify(v); !refused(err) && !(q.Sample > 0 && q.Sample <= 1) {
			t.Fatalf("%q: %+v", query, q)
		}
		if q, err := ParseShards(v); !refused(err) && len(q.Shards) > ShardsMax {
			t.Fatalf("%q: %+v", query, q)
		}
		if form, edge, err := ParseForm(v, 200, 300); !refused(err) &&
			(form == FormThumbnail) != (edge >= 1 && edge <= 300) {
			t.Fatalf("%q: %q, %d, %v", query, form, edge, err)
		}
		if user, name, err := ParseName(v); !refused(err) &&
			(image.CheckUser(user) != nil || image.CheckName(name) != nil) {
			t.Fatalf("%q: %q %q", query, user, name)
		}
	})
}
