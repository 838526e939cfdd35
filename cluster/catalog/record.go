package catalog

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"imgcluster/cluster/image"
	"imgcluster/cluster/pack"
)

// A record is in the table r under its user and name, as bytes: most of what a shard has are records, and a
// node goes through all of them after a start, at each sweep and for each list. JSON would take three times
// the space and twenty times the time.
//
// In this order: the version of the format; ID, MAC; as unsigned varints the number, Bytes, Check.Key, Owner,
// Shard, Wanted, Version and Recopied; Created in seconds and nanoseconds; the number of copies, of each the
// node, the key and the attempt; the length of Type, and Type; and Sealed, where there is one.
const recordVersion = 1

// EncodeRecord returns the value of a record in the table r.
func EncodeRecord(rec *image.Record) []byte {
	b := make([]byte, 0, 160)
	b = append(b, recordVersion)
	b = append(b, rec.ID[:]...)
	b = append(b, rec.Check.MAC[:]...)
	b = pack.Numbers(b, uint64(rec.Bytes), uint64(rec.Check.Key), uint64(rec.Owner), rec.Shard,
		uint64(rec.Wanted), rec.Version, rec.Recopied)
	b = pack.Numbers(pack.Time(b, rec.Created), uint64(len(rec.Copies)))
	for _, c := range rec.Copies {
		b = append(pack.Numbers(b, uint64(c.Node), uint64(c.Key)), c.Attempt[:]...)
	}
	b = pack.Text(b, rec.Type)
	if rec.Sealed != nil {
		b = append(b, rec.Sealed[:]...)
	}
	return b
}

var errRecord = errors.New("not a record of this version")

// DecodeRecord is the inverse of EncodeRecord. The key is the record's in the table r.
func DecodeRecord(key, value []byte) (*image.Record, error) {
	user, name, ok := bytes.Cut(key[1:], []byte{0})
	d := pack.Read(value)
	if !ok {
		d.Fail()
	}
	rec := &image.Record{User: string(user), Name: string(name)}
	if v := d.Bytes(1); v[0] != recordVersion {
		d.Fail()
	}
	copy(rec.ID[:], d.Bytes(len(rec.ID)))
	copy(rec.Check.MAC[:], d.Bytes(len(rec.Check.MAC)))
	rec.Bytes = int64(d.Number())
	rec.Check.Key = uint32(d.Number())
	rec.Owner = image.NodeID(d.Number())
	rec.Shard = d.Number()
	rec.Wanted = int(d.Number())
	rec.Version = d.Number()
	rec.Recopied = d.Number()
	rec.Created = d.Time()
	rec.Copies = make([]image.Copy, min(d.Number(), image.NodesMax))
	for i := range rec.Copies {
		c := &rec.Copies[i]
		c.Node, c.Key = image.NodeID(d.Number()), uint32(d.Number())
		copy(c.Attempt[:], d.Bytes(len(c.Attempt)))
	}
	rec.Type = d.Text()
	if d.Len() > 0 {
		rec.Sealed = &image.SealedDigest{}
		copy(rec.Sealed[:], d.Bytes(len(rec.Sealed)))
	}
	if !d.Done() {
		return nil, fmt.Errorf("catalog: value of key %q: %w", key, errRecord)
	}
	return rec, nil
}

func (t *txn) putRecord(rec *image.Record) error {
	return t.tx.Set(nameKey(rec.User, rec.Name), EncodeRecord(rec))
}

// getRecord returns the record of a key, nil when there is none.
func getRecord(r Reader, key []byte) (*image.Record, error) {
	b, err := r.Get(key)
	if err != nil || b == nil {
		return nil, err
	}
	return DecodeRecord(key, b)
}

// scanRecords calls fn with the records whose keys start with prefix and come after `after`, until fn returns
// false.
func scanRecords(r Reader, prefix, after []byte, fn func(key []byte, rec *image.Record) bool) error {
	from := prefix
	if after != nil {
		from = append(slices.Clone(after), 0)
	}
	var bad error
	err := r.Scan(from, prefixEnd(prefix), func(k, b []byte) bool {
		rec, err := DecodeRecord(k, b)
		if bad = err; err != nil {
			return false
		}
		return fn(k, rec)
	})
	return cmp.Or(err, bad)
}
