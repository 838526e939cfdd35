package consensus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"imgcluster/cluster/catalog"
)

// A key of the database is the shard (8 bytes, big endian), a section byte and the rest. One shard
// is thus one span, which a snapshot replaces as a whole.
const (
	sectionOwn   = 0 // this package's: the applied index, and under shard 0 the identity
	sectionState = 1 // the keys of Apply
)

// Limits of one key and one value in bytes, so that a damaged snapshot cannot ask for all memory.
const (
	keyBytesMax   = 64 << 10
	valueBytesMax = 16 << 20
)

func prefixed(shard uint64, section byte, key []byte) []byte {
	b := make([]byte, 0, 9+len(key))
	b = binary.BigEndian.AppendUint64(b, shard)
	return append(append(b, section), key...)
}

// span returns the bounds of all that a shard has.
func span(shard uint64) pebble.KeyRange {
	return pebble.KeyRange{
		Start: binary.BigEndian.AppendUint64(nil, shard), End: binary.BigEndian.AppendUint64(nil, shard+1),
	}
}

// bounds turns Scan's [from, to) into keys of the database.
func bounds(shard uint64, from, to []byte) *pebble.IterOptions {
	end := prefixed(shard, sectionState+1, nil)
	if to != nil {
		end = prefixed(shard, sectionState, to)
	}
	return &pebble.IterOptions{LowerBound: prefixed(shard, sectionState, from), UpperBound: end}
}

// get returns a copy of key's value, nil when there is none.
func get(r pebble.Reader, key []byte) ([]byte, error) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return append(make([]byte, 0, len(v)), v...), nil
}

// scan calls fn with the keys and opened values of a shard's state.
func (d *database) scan(it *pebble.Iterator, fn func(key, value []byte) bool) error {
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err == nil {
			v, err = openValue(d.disk, it.Key(), v)
		}
		if err != nil {
			return errors.Join(err, it.Close())
		}
		if !fn(it.Key()[9:], v) {
			break
		}
	}
	return it.Close()
}

// shardView is a consistent state of one shard. It reads from an iterator, not from a pebble snapshot: that
// the shard's keys are replaced, as by RecoverFromSnapshot, shows through a snapshot.
type shardView struct {
	db    *database
	shard uint64
	it    *pebble.Iterator
}

func newShardView(d *database, shard uint64) (*shardView, error) {
	it, err := d.pebble.NewIter(bounds(shard, nil, nil))
	if err != nil {
		return nil, err
	}
	return &shardView{db: d, shard: shard, it: it}, nil
}

// Get implements catalog.Reader.
func (v *shardView) Get(key []byte) ([]byte, error) {
	full := prefixed(v.shard, sectionState, key)
	if !v.it.SeekGE(full) || !bytes.Equal(v.it.Key(), full) {
		return nil, v.it.Error()
	}
	sealed, err := v.it.ValueAndErr()
	if err != nil {
		return nil, err
	}
	return openValue(v.db.disk, full, sealed)
}

// Scan implements catalog.Reader. fn may call Get and Scan.
func (v *shardView) Scan(from, to []byte, fn func(key, value []byte) bool) error {
	it, err := v.it.Clone(pebble.CloneOptions{IterOptions: bounds(v.shard, from, to)})
	if err != nil {
		return err
	}
	return v.db.scan(it, fn)
}

// tx is what Apply sees: the shard with the writes of the batch so far. err keeps the first failure
// of the database, since Apply cannot be trusted to report it and must not turn it into a result.
type tx struct {
	db    *database
	shard uint64
	batch *pebble.Batch
	err   error
}

var _ catalog.Tx = (*tx)(nil)

func (t *tx) failed(err error) error {
	if t.err == nil {
		t.err = err
	}
	return err
}

// Get implements catalog.Reader.
func (t *tx) Get(key []byte) ([]byte, error) {
	full := prefixed(t.shard, sectionState, key)
	sealed, closer, err := t.batch.Get(full)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, t.failed(err)
	}
	defer closer.Close()
	v, err := openValue(t.db.disk, full, sealed)
	return v, t.failed(err)
}

// Scan implements catalog.Reader. It shows the shard as it was when the scan began.
func (t *tx) Scan(from, to []byte, fn func(key, value []byte) bool) error {
	it, err := t.batch.NewIter(bounds(t.shard, from, to))
	if err != nil {
		return t.failed(err)
	}
	return t.failed(t.db.scan(it, fn))
}

// Set implements catalog.Tx. Beyond the limits it panics, which undoes the command everywhere.
func (t *tx) Set(key, value []byte) error {
	if len(key) > keyBytesMax || len(value) > valueBytesMax {
		panic(fmt.Sprintf("key of %d or value of %d bytes is too large", len(key), len(value)))
	}
	full := prefixed(t.shard, sectionState, key)
	return t.failed(t.batch.Set(full, sealValue(t.db.disk, full, value), nil))
}

// Delete implements catalog.Tx.
func (t *tx) Delete(key []byte) error {
	return t.failed(t.batch.Delete(prefixed(t.shard, sectionState, key), nil))
}
