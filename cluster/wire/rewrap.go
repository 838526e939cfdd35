package wire

import (
	"net/url"
	"strconv"

	"imgcluster/cluster/image"
)

// Rewrap is how far it is that all copies of a user's images are encrypted under one of the user's keys or a
// newer one.
type Rewrap struct {
	User  string       `json:"user"`
	Key   uint32       `json:"key"`   // its number
	Left  int64        `json:"left"`  // copies under older keys
	Nodes []RewrapNode `json:"nodes"` // that have some of these
}

// RewrapNode is a node with copies under older keys.
type RewrapNode struct {
	ID   image.NodeID `json:"id"`
	Left int64        `json:"left"`
}

// OldCopiesQuery selects the copies of a user's images in some shards that are under keys before one.
type OldCopiesQuery struct {
	ShardQuery
	Key uint32
}

// Values returns the query as URL parameters.
func (q OldCopiesQuery) Values() url.Values {
	v := url.Values{"key": {strconv.FormatUint(uint64(q.Key), 10)}}
	q.Set(v)
	return v
}

// ParseOldCopies reads an OldCopiesQuery.
func ParseOldCopies(v url.Values) (q OldCopiesQuery, err error) {
	if q.ShardQuery, err = ParseShards(v); err != nil {
		return q, err
	}
	key, err := strconv.ParseUint(v.Get("key"), 10, 32)
	if err != nil {
		return q, image.Errorf(image.KindInvalid, "key=%.20q", v.Get("key")).WithHint("give the number of a key")
	}
	q.Key = uint32(key)
	return q, nil
}

// OldCopies counts copies under older keys, by node.
type OldCopies map[image.NodeID]int64
