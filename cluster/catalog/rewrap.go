package catalog

import (
	"imgcluster/cluster/image"
)

// Rewrap has the copies of a user's images that are under older keys encrypted again under the user's current
// key. It names what is wanted: the nodes compare their copies with it, so that also one which an upload
// under an older key adds later is encrypted again.
type Rewrap struct {
	User string `json:"user"`
}

// copyCounts are the copies of a user's images in a shard, by node and by the number of the user's key.
type copyCounts map[image.NodeID]map[uint32]int64

func (t *txn) rewrap(c *Rewrap) (Result, error) {
	if err := image.CheckUser(c.User); err != nil {
		return reject(err), nil
	}
	current, err := CurrentUserKey(t.tx, c.User)
	if err != nil {
		return Result{}, err
	}
	if current == nil {
		return reject(errNoUser(c.User)), nil
	}
	t.events = append(t.events, Event{Rewrap: c})
	return Result{Key: current}, t.put(ofUser(rewrapTable, c.User), current.KeyID)
}

// Rewraps calls fn with each user of whom copies under older keys are encrypted again, and the least number
// of a key that copies may be under, in the order of the users.
func Rewraps(r Reader, fn func(user string, least uint32)) error {
	return scan(r, []byte{rewrapTable}, nil, func(k []byte, least *uint32) bool {
		fn(string(k[1:len(k)-1]), *least)
		return true
	})
}

// RewrapOf returns the least number of a key that copies of a user's images may be under, 0 when they may be
// under any.
func RewrapOf(r Reader, user string) (least uint32, err error) {
	_, err = get(r, ofUser(rewrapTable, user), &least)
	return least, err
}

// OldCopies counts the copies of a user's images in a shard that are under keys before least, by node.
func OldCopies(r Reader, user string, least uint32) (map[image.NodeID]int64, error) {
	counts := copyCounts{}
	if _, err := get(r, ofUser(copiesTable, user), &counts); err != nil {
		return nil, err
	}
	old := map[image.NodeID]int64{}
	for node, keys := range counts {
		for key, n := range keys {
			if key < least {
				old[node] += n
			}
		}
	}
	return old, nil
}

// countCopies counts the copies of records of one user.
func (t *txn) countCopies(sign int64, recs []*image.Record) error {
	row := ofUser(copiesTable, recs[0].User)
	counts := copyCounts{}
	if _, err := get(t.tx, row, &counts); err != nil {
		return err
	}
	for _, rec := range recs {
		for _, c := range rec.Copies {
			counts.add(c, sign)
		}
	}
	if len(counts) == 0 {
		return t.tx.Delete(row)
	}
	return t.put(row, counts)
}

func (c copyCounts) add(x image.Copy, sign int64) {
	keys := c[x.Node]
	if keys == nil {
		keys = map[uint32]int64{}
		c[x.Node] = keys
	}
	if keys[x.Key] += sign; keys[x.Key] == 0 {
		delete(keys, x.Key)
	}
	if len(keys) == 0 {
		delete(c, x.Node)
	}
}
