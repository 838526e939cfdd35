package catalog

// Reader reads one shard's part of the database. Keys are relative to the shard.
type Reader interface {
	// Get returns the value of key, nil when there is none. The caller may keep it.
	Get(key []byte) ([]byte, error)
	// Scan calls fn with the keys in [from, to) in byte order until fn returns false. A nil to means
	// the end of the shard. fn must copy what it keeps.
	Scan(from, to []byte, fn func(key, value []byte) bool) error
}

// Tx is a Reader that sees its own writes; they become visible and durable as one.
type Tx interface {
	Reader
	Set(key, value []byte) error
	Delete(key []byte) error
}
