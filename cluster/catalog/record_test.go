package catalog

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"imgcluster/cluster/image"
)

// someRecord draws a record.
func someRecord(t *rapid.T) *image.Record {
	rec := &image.Record{
		User:    rapid.StringMatching("[a-zäß]{1,9}").Draw(t, "user"),
		Name:    rapid.StringMatching("[a-z/ö.]{1,99}").Draw(t, "name"),
		Version: rapid.Uint64().Draw(t, "version"), Recopied: rapid.Uint64().Draw(t, "recopied"),
		Bytes: rapid.Int64Min(0).Draw(t, "bytes"), Type: rapid.StringN(0, 40, -1).Draw(t, "type"),
		Owner: image.NodeID(rapid.Uint32().Draw(t, "owner")), Shard: rapid.Uint64().Draw(t, "shard"),
		Wanted: rapid.IntRange(0, image.NodesMax).Draw(t, "wanted"), Copies: []image.Copy{},
		Created: time.Unix(rapid.Int64Range(-1<<40, 1<<40).Draw(t, "seconds"),
			rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds")).UTC(),
	}
	fill := func(b []byte, label string) {
		copy(b, rapid.SliceOfN(rapid.Byte(), len(b), len(b)).Draw(t, label))
	}
	fill(rec.ID[:], "id")
	fill(rec.Check.MAC[:], "mac")
	rec.Check.Key = rapid.Uint32().Draw(t, "key")
	for range rapid.IntRange(0, image.NodesMax).Draw(t, "copies") {
		c := image.Copy{Node: image.NodeID(rapid.Uint32().Draw(t, "node"))}
		c.Key = rapid.Uint32().Draw(t, "the key of a copy")
		fill(c.Attempt[:], "attempt")
		rec.Copies = append(rec.Copies, c)
	}
	if rapid.Bool().Draw(t, "sealed") {
		rec.Sealed = &image.SealedDigest{}
		fill(rec.Sealed[:], "digest")
	}
	return rec
}

// TestRecordValue: a record is read as it was written, and none that was cut, or has more.
func TestRecordValue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rec := someRecord(t)
		key, b := nameKey(rec.User, rec.Name), EncodeRecord(rec)
		got, err := DecodeRecord(key, b)
		if err != nil || !reflect.DeepEqual(got, rec) {
			t.Fatalf("%+v, %v, want %+v", got, err, rec)
		}
		newer := append([]byte{recordVersion + 1}, b[1:]...)
		if _, err := DecodeRecord(key, newer); !errors.Is(err, errRecord) {
			t.Fatalf("a record of the next version is read, %v", err)
		}
		whole := len(b)
		if rec.Sealed != nil {
			whole -= len(rec.Sealed) // without it all, it is another record
		}
		for n := range len(b) {
			if _, err := DecodeRecord(key, b[:n]); err == nil && n != whole {
				t.Fatalf("%d bytes of %d are a record", n, len(b))
			}
		}
		if _, err := DecodeRecord(key, append(b, make([]byte, 49)...)); err == nil {
			t.Fatal("a record with more behind it is one")
		}
	})
}

// FuzzDecodeRecord: what is decoded at all is what its encoding is decoded to.
func FuzzDecodeRecord(f *testing.F) {
	rec := &image.Record{
		User: "alice", Name: "a.png", ID: id(1), Bytes: 5, Type: "image/png", Owner: 1, Wanted: 2, Shard: 2,
		Copies: []image.Copy{{Node: 1, Key: 1}, {Node: 2, Key: 1}}, Created: clock,
	}
	f.Add(nameKey("alice", "a.png"), EncodeRecord(rec))
	rec.Sealed = &image.SealedDigest{1}
	f.Add(nameKey("alice", "a.png"), EncodeRecord(rec))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		if len(key) == 0 {
			return
		}
		rec, err := DecodeRecord(key, value)
		if err != nil {
			return
		}
		again, err := DecodeRecord(key, EncodeRecord(rec))
		if err != nil || !reflect.DeepEqual(again, rec) || !bytes.Equal(nameKey(rec.User, rec.Name)[1:], key[1:]) {
			t.Fatalf("%+v, then %+v, %v", rec, again, err)
		}
	})
}
