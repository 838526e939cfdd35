package catalog

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"imgcluster/cluster/image"
)

// Limits of what the system shard keeps of users.
const (
	usersMax        = 1 << 20
	accessKeysMax   = 10_000
	accessKeysOfMax = 100 // of one user, and of none
	accessKeyIDMax  = 64  // bytes
	sealedBytesMax  = 256 // of an access key's secret
	wrappedBytesMax = 256 // of a user's key
	removalsMax     = 1000
	purgedAtOnce    = 200 // images, or answers, by one Purge
)

// AccessKey is what the system shard keeps of an access key.
type AccessKey struct {
	ID      string     `json:"id"`
	User    string     `json:"user,omitempty"` // whom it belongs to; may be empty, see image.Role.OfUser
	Role    image.Role `json:"role"`
	Created time.Time  `json:"created"`
	Expires time.Time  `json:"expires,omitzero"` // zero: never
	Sealed  []byte     `json:"sealed"`           // the secret, see access.Sealer
}

func (k *AccessKey) equal(o *AccessKey) bool {
	return k.ID == o.ID && k.User == o.User && k.Role == o.Role && k.Created.Equal(o.Created) &&
		k.Expires.Equal(o.Expires) && bytes.Equal(k.Sealed, o.Sealed)
}

// RemoveAccessKey removes an access key.
type RemoveAccessKey struct {
	ID string `json:"id"`
	// Of makes a key of any other user unknown.
	Of string `json:"of,omitempty"`
}

// RemoveUser removes a user: its keys and access keys at once, which makes its images unreadable; the rest is
// left to do in a Removal. A removed user's name may be used again once all its images are gone.
type RemoveUser struct {
	User  string    `json:"user"`
	Since time.Time `json:"since"`
}

// Removal is the rest of a user's removal. It ends when nothing is left to do.
type Removal struct {
	Number uint64    `json:"number"` // from 1; later ones have higher numbers
	User   string    `json:"user"`
	Since  time.Time `json:"since"`
	// Shards are the data shards that may have images of the user.
	Shards []uint64 `json:"shards,omitempty"`
	// Nodes are those whose disks may still have the wrapped keys, as old values of what they replaced.
	Nodes []image.NodeID `json:"nodes,omitempty"`
}

// Purge deletes images of a removed user from a data shard, some at a time. Removals are executed in the
// order of their numbers: one that comes late changes nothing, for the name may be in use again.
type Purge struct {
	Removal uint64 `json:"removal"`
	User    string `json:"user"`
}

// Purged is what a Purge has done.
type Purged struct {
	Images int  `json:"images"`
	More   bool `json:"more"` // there are more
}

// Removed says that a part of a Removal is done: that of a data shard, or of a node.
type Removed struct {
	Removal uint64       `json:"removal"`
	Shard   uint64       `json:"shard,omitempty"`
	Node    image.NodeID `json:"node,omitempty"`
}

// accounts is what the system shard knows of all users together.
type accounts struct {
	Users      int `json:"users"`
	AccessKeys int `json:"access_keys"`
	// Floor is the highest ID of a removed user's key. A user's first key has a higher one, so that no
	// user's key has the ID of one that was destroyed.
	Floor    uint32 `json:"floor"`
	Removals uint64 `json:"removals"` // the number of the last one
}

func accessKeyKey(user, id string) []byte {
	return append(ofUser(accessKeyTable, user), id...)
}

func accessIDKey(id string) []byte { return append([]byte{accessIDTable}, id...) }

func removalKey(n uint64) []byte { return binary.BigEndian.AppendUint64([]byte{removalTable}, n) }

func getAccounts(r Reader) (*accounts, error) {
	a := &accounts{}
	_, err := get(r, []byte{accountsKey}, a)
	return a, err
}

// scan calls fn with the values of a table whose keys start with prefix and come after `after`.
func scan[T any](r Reader, prefix, after []byte, fn func(key []byte, v *T) bool) error {
	from := prefix
	if after != nil {
		from = append(slices.Clone(after), 0)
	}
	var bad error
	err := r.Scan(from, prefixEnd(prefix), func(k, b []byte) bool {
		v := new(T)
		if bad = json.Unmarshal(b, v); bad != nil {
			return false
		}
		return fn(k, v)
	})
	return cmp.Or(err, bad)
}

// GetAccessKey returns an access key, nil when there is none with this ID.
func GetAccessKey(r Reader, id string) (*AccessKey, error) {
	user, err := r.Get(accessIDKey(id))
	if err != nil || user == nil {
		return nil, err
	}
	return find[AccessKey](r, accessKeyKey(string(user), id))
}

// AccessKeys calls fn with all access keys, by user and ID.
func AccessKeys(r Reader, fn func(*AccessKey)) error {
	return scan(r, []byte{accessKeyTable}, nil, func(_ []byte, k *AccessKey) bool { fn(k); return true })
}

// ListAccessKeys returns up to limit access keys whose IDs come after `after` (empty: from the first), by ID.
// of, when it is not empty, selects those of one user.
func ListAccessKeys(r Reader, of, after string, limit int) (keys []*AccessKey, err error) {
	if of != "" {
		var place []byte
		if after != "" {
			place = accessKeyKey(of, after)
		}
		err = scan(r, ofUser(accessKeyTable, of), place, func(_ []byte, k *AccessKey) bool {
			keys = append(keys, k)
			return len(keys) < limit
		})
		return keys, err
	}
	from := accessIDKey("")
	if after != "" {
		from = append(accessIDKey(after), 0)
	}
	var bad error
	err = r.Scan(from, prefixEnd(accessIDKey("")), func(key, _ []byte) bool {
		var k *AccessKey
		if k, bad = GetAccessKey(r, string(key[1:])); bad != nil {
			return false
		}
		keys = append(keys, k)
		return len(keys) < limit
	})
	return keys, cmp.Or(err, bad)
}

func (t *txn) addAccessKey(k *AccessKey) (Result, error) {
	if err := image.CheckRole(k.Role, k.User); err != nil {
		return reject(err), nil
	}
	odd := func(r rune) bool { return (r < 'A' || r > 'Z') && (r < '0' || r > '9') }
	if k.ID == "" || len(k.ID) > accessKeyIDMax || strings.ContainsFunc(k.ID, odd) {
		return reject(image.Errorf(image.KindInvalid, "%.64q is no ID of an access key", k.ID)), nil
	}
	if err := checkSealed("sealed secret", k.Sealed, sealedBytesMax); err != nil {
		return reject(err), nil
	}
	old, err := GetAccessKey(t.tx, k.ID)
	if err != nil {
		return Result{}, err
	}
	if old != nil {
		if !old.equal(k) {
			return reject(image.Errorf(image.KindConflict, "there is an access key %s", k.ID)), nil
		}
		return Result{AccessKey: old}, nil
	}
	if k.User != "" {
		if current, err := CurrentUserKey(t.tx, k.User); err != nil {
			return Result{}, err
		} else if current == nil {
			return reject(errNoUser(k.User)), nil
		}
	}
	if out, err := t.outgoing(k.Sealed); out || err != nil {
		return rejectOutgoing(), err
	}
	a, err := getAccounts(t.tx)
	if err != nil {
		return Result{}, err
	}
	of, err := t.countOf(k.User)
	if err != nil {
		return Result{}, err
	}
	switch {
	case a.AccessKeys >= accessKeysMax:
		return reject(image.Errorf(image.KindInvalid, "the cluster has %d access keys, the most", a.AccessKeys).
			WithHint("remove those that are not used: imgcluster key list, imgcluster key rm")), nil
	case of >= accessKeysOfMax:
		return reject(image.Errorf(image.KindInvalid, "user %q has %d access keys, the most", k.User, of).
			WithHint("remove those that are not used: imgcluster key list, imgcluster key rm")), nil
	}
	a.AccessKeys++
	t.events = append(t.events, Event{AccessKey: k})
	err = t.put([]byte{accountsKey}, a)
	if err == nil {
		err = t.tx.Set(accessIDKey(k.ID), []byte(k.User))
	}
	if err == nil {
		err = t.put(accessKeyKey(k.User, k.ID), k)
	}
	return Result{AccessKey: k}, err
}

// countOf counts the access keys of a user.
func (t *txn) countOf(user string) (n int, err error) {
	prefix := accessKeyKey(user, "")
	err = t.tx.Scan(prefix, prefixEnd(prefix), func(_, _ []byte) bool { n++; return true })
	return n, err
}

func (t *txn) removeAccessKey(c *RemoveAccessKey) (Result, error) {
	k, err := GetAccessKey(t.tx, c.ID)
	if err != nil {
		return Result{}, err
	}
	if k == nil || c.Of != "" && k.User != c.Of {
		return reject(image.Errorf(image.KindNotFound, "there is no access key %.64q", c.ID).
			WithHint("see imgcluster key list")), nil
	}
	a, err := getAccounts(t.tx)
	if err == nil {
		err = t.dropAccessKey(a, k)
	}
	if err == nil {
		err = t.put([]byte{accountsKey}, a)
	}
	return Result{}, err
}

// dropAccessKey deletes an access key and has the node notified.
func (t *txn) dropAccessKey(a *accounts, k *AccessKey) error {
	a.AccessKeys--
	t.events = append(t.events, Event{AccessKeyRemoved: k.ID})
	if err := t.tx.Delete(accessIDKey(k.ID)); err != nil {
		return err
	}
	return t.tx.Delete(accessKeyKey(k.User, k.ID))
}

func errNoUser(user string) error {
	return image.Errorf(image.KindNotFound, "there is no user %q", user).
		WithHint("see imgcluster user list; make one with imgcluster user add")
}
