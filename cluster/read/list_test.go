package read

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/clustertest/memkv"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// countedLog is shards in memory that count the rows that are read of them.
type countedLog struct {
	shards map[uint64]memkv.KV
	rows   atomic.Int64
}

func (l *countedLog) Read(_ context.Context, shard uint64, fn func(catalog.Reader) error) error {
	return fn(countedReader{l.shards[shard], &l.rows})
}

type countedReader struct {
	memkv.KV
	rows *atomic.Int64
}

func (r countedReader) Scan(from, to []byte, fn func(key, value []byte) bool) error {
	return r.KV.Scan(from, to, func(k, v []byte) bool { r.rows.Add(1); return fn(k, v) })
}

// TestListReadsNoFurther lists shards page by page: all images once and in order, and of the records only
// those of the page and one more of each shard are read, however many shards there are.
func TestListReadsNoFurther(t *testing.T) {
	const shards, images, limit = 20, 2000, 100
	log := &countedLog{shards: map[uint64]memkv.KV{}}
	m := New(Options{Log: log, Timeout: time.Minute})
	var all []uint64
	for shard := range uint64(shards) {
		all = append(all, shard)
		log.shards[shard] = memkv.KV{"ralice": nil, "rbob\x00name": nil} // before and after
	}
	for i := range images {
		rec := &image.Record{
			Name: fmt.Sprintf("%05d.png", i), Bytes: int64(i), Owner: 1, Created: time.Now().UTC(),
			Copies: []image.Copy{{Node: 1}, {Node: 3}},
		}
		log.shards[uint64(i*7%shards)]["ralice\x00"+rec.Name] = catalog.EncodeRecord(rec)
	}
	listed, after := 0, ""
	for more := true; more; {
		log.rows.Store(0)
		l, err := m.ListShards(t.Context(), all, "alice", "", after, limit)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range l.Images {
			want := wire.Info{
				Name: fmt.Sprintf("%05d.png", listed), Bytes: int64(listed), Type: "image/png", Owner: 1,
				Replicas: []image.NodeID{1, 3}, Created: i.Created,
			}
			if !reflect.DeepEqual(i, want) || i.Created.IsZero() {
				t.Fatalf("%+v, want %+v", i, want)
			}
			listed++
		}
		if rows := log.rows.Load(); rows > limit+shards+1 {
			t.Errorf("%d rows are read for a page of %d of %d shards", rows, limit, shards)
		}
		after, more = l.Next, l.Next != ""
	}
	if listed != images {
		t.Errorf("%d images are listed, want %d", listed, images)
	}
}

// TestListOfShardThatFails: a list without one of its shards is an error, and nobody waits for the others.
func TestListOfShardThatFails(t *testing.T) {
	m := New(Options{Log: failingLog{}, Timeout: time.Minute})
	_, err := m.ListShards(t.Context(), []uint64{2, 3, 4}, "alice", "", "", 10)
	if image.KindOf(err) != image.KindNoQuorum {
		t.Errorf("%v", err)
	}
}

// failingLog has no quorum in shard 3.
type failingLog struct{}

func (failingLog) Read(_ context.Context, shard uint64, fn func(catalog.Reader) error) error {
	if shard == 3 {
		return image.Errorf(image.KindNoQuorum, "no majority")
	}
	return fn(memkv.KV{})
}

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
