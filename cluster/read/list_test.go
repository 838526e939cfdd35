package read

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"imgcluster/cluster/wire"
)

// TestListPage merges random lists, some of them cut as another node's page is, and compares with sorting
// all.
func TestListPage(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		limit := 1 + rng.IntN(12)
		var all []string
		page := &listPage{limit: limit}
		for list := range 1 + rng.IntN(4) {
			names := []wire.Info{}
			for n := range rng.IntN(20) {
				names = append(names, wire.Info{Name: fmt.Sprintf("%02d-%d-%d", rng.IntN(50), list, n)})
			}
			slices.SortFunc(names, func(a, b wire.Info) int { return strings.Compare(a.Name, b.Name) })
			for _, i := range names {
				all = append(all, i.Name)
			}
			if remote := (wire.List{Images: names}); rng.IntN(2) == 0 {
				if len(names) > limit {
					remote = wire.List{Images: names[:limit], Next: names[limit-1].Name}
				}
				text, err := json.Marshal(remote)
				if err == nil {
					err = page.read(bytes.NewReader(text))
				}
				if err != nil {
					t.Fatal(err)
				}
				continue
			}
			for _, i := range names {
				if !page.offer(listed{Info: i}) {
					break
				}
			}
		}
		if len(page.first) > limit {
			t.Fatalf("%d images are kept, of a page of %d", len(page.first), limit)
		}
		slices.Sort(all)
		got, _ := page.list(nil)
		want := all[:min(limit, len(all))]
		if len(got.Images) != len(want) || (got.Next != "") != (len(all) > len(want)) ||
			got.Next != "" && got.Next != want[len(want)-1] {
			t.Fatalf("%d images, next %q; want %d of %d", len(got.Images), got.Next, len(want), len(all))
		}
		for i, name := range want {
			if got.Images[i].Name != name {
				t.Fatalf("image %d is %q, want %q", i, got.Images[i].Name, name)
			}
		}
	}
}

// TestListPageBytes: a page of long names ends at its bytes, and the pages after it have the rest, once.
func TestListPageBytes(t *testing.T) {
	const images, limit = 6000, 10000
	name := func(i int) string { return fmt.Sprintf("%06d", i) + strings.Repeat("n", 900*(i%2)) }
	after := -1
	pages := 0
	for after < images-1 {
		page := &listPage{limit: limit}
		for list := range 3 { // every third image
			for i := after + 1; i < images; i++ {
				if i%3 == list && !page.offer(listed{Info: wire.Info{Name: name(i)}}) {
					break
				}
				if page.bytes > pageBytesMax+2000 {
					t.Fatalf("%d bytes are kept", page.bytes)
				}
			}
		}
		l, _ := page.list(nil)
		for _, i := range l.Images {
			if after++; i.Name != name(after) {
				t.Fatalf("image %d is %.10q", after, i.Name)
			}
		}
		if pages++; (l.Next == "") != (after == images-1) {
			t.Fatalf("next %.10q after %d of %d", l.Next, after+1, images)
		}
	}
	if pages < 2 {
		t.Error("all on one page")
	}
}

// TestListThatBreaksOff: a page that did not come whole is an error, never a shorter list.
func TestListThatBreaksOff(t *testing.T) {
	text, err := json.Marshal(wire.List{Images: []wire.Info{{Name: "a"}, {Name: "b"}}, Next: "b"})
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(text) {
		if err := (&listPage{limit: 10}).read(bytes.NewReader(text[:n])); err == nil {
			t.Errorf("%s is taken for a whole list", text[:n])
		}
	}
}
