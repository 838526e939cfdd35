// Package memkv implements catalog.Tx, a shard's part of the database, in memory for tests. It does not
// import package catalog, so that the catalog's own tests can use it.
package memkv

import (
	"bytes"
	"maps"
	"slices"
)

// KV maps keys to values.
type KV map[string][]byte

// Get returns the value of key, nil when there is none.
func (m KV) Get(key []byte) ([]byte, error) { return m[string(key)], nil }

// Scan calls fn with the keys in [from, to) in byte order until it returns false.
func (m KV) Scan(from, to []byte, fn func(key, value []byte) bool) error {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if k < string(from) || to != nil && k >= string(to) {
			continue
		}
		if !fn([]byte(k), m[k]) {
			break
		}
	}
	return nil
}

// Set stores a copy of value.
func (m KV) Set(key, value []byte) error {
	m[string(key)] = slices.Clone(value)
	return nil
}

// Delete removes key.
func (m KV) Delete(key []byte) error {
	delete(m, string(key))
	return nil
}

// Equal reports whether two replicas have the same keys and values.
func (m KV) Equal(o KV) bool { return maps.EqualFunc(m, o, bytes.Equal) }
