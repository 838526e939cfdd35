package catalog

import (
	"bytes"
	"encoding/binary"
	"slices"

	"imgcluster/cluster/image"
)

// FirstKeyID returns the ID that the first key of a new user has to have, or a higher one.
func FirstKeyID(r Reader) (uint32, error) {
	a, err := getAccounts(r)
	return a.Floor + 1, err
}

// CurrentUserKey returns the key that a user's new images are encrypted with, nil when there is no such user.
func CurrentUserKey(r Reader, user string) (k *PutKey, err error) {
	err = scan(r, ofUser(userKeyTable, user), nil, func(_ []byte, v *PutKey) bool {
		k = v // by ID: the last one
		return true
	})
	return k, err
}

// FirstUserKey returns the oldest key of a user, nil when there is no such user.
func FirstUserKey(r Reader, user string) (k *PutKey, err error) {
	err = scan(r, ofUser(userKeyTable, user), nil, func(_ []byte, v *PutKey) bool {
		k = v
		return false
	})
	return k, err
}

// UserKeys returns up to limit keys that come after this one, by user and ID; those of an empty user come
// first.
func UserKeys(r Reader, user string, id uint32, limit int) (keys []*PutKey, err error) {
	var after []byte
	if user != "" {
		after = userKeyKey(user, id)
	}
	err = scan(r, []byte{userKeyTable}, after, func(_ []byte, k *PutKey) bool {
		keys = append(keys, k)
		return len(keys) < limit
	})
	return keys, err
}

// ListUsers returns up to limit users that come after the name `after` (empty: from the first), each by its
// first key.
func ListUsers(r Reader, after string, limit int) (users []*PutKey, err error) {
	var from []byte
	if after != "" {
		from = binary.BigEndian.AppendUint32(ofUser(userKeyTable, after), ^uint32(0))
	}
	err = scan(r, []byte{userKeyTable}, from, func(_ []byte, k *PutKey) bool {
		if n := len(users); n == 0 || users[n-1].User != k.User {
			users = append(users, k)
		}
		return len(users) < limit
	})
	return users, err
}

func (k *PutKey) check() error {
	if err := image.CheckUser(k.User); err != nil {
		return err
	}
	return checkSealed("wrapped key", k.Wrapped, wrappedBytesMax)
}

func (t *txn) putKey(k *PutKey) (Result, error) {
	if err := k.check(); err != nil {
		return reject(err), nil
	}
	current, err := CurrentUserKey(t.tx, k.User)
	if err != nil {
		return Result{}, err
	}
	if current != nil {
		return Result{Key: current}, nil
	}
	a, err := getAccounts(t.tx)
	if err != nil {
		return Result{}, err
	}
	removals, err := Removals(t.tx)
	if err != nil {
		return Result{}, err
	}
	switch {
	case slices.ContainsFunc(removals, func(x *Removal) bool { return x.User == k.User && len(x.Shards) > 0 }):
		return reject(image.Errorf(image.KindForbidden, "user %q is being removed", k.User).
			WithHint("wait until that is done: imgcluster user list")), nil
	case k.KeyID <= a.Floor:
		return reject(image.Errorf(image.KindStale, "key ID %d was a removed user's", k.KeyID)), nil
	case a.Users >= usersMax:
		return reject(image.Errorf(image.KindInvalid, "the cluster has %d users, the most", a.Users).
			WithHint("remove those that are not needed: imgcluster user rm")), nil
	}
	if out, err := t.outgoing(k.Wrapped); out || err != nil {
		return rejectOutgoing(), err
	}
	a.Users++
	if err := t.put([]byte{accountsKey}, a); err != nil {
		return Result{}, err
	}
	return Result{Key: k}, t.put(userKeyKey(k.User, k.KeyID), k)
}

// LastRemoval returns the number of the last removal that began, 0 before the first.
func LastRemoval(r Reader) (uint64, error) {
	a, err := getAccounts(r)
	return a.Removals, err
}

// addUserKey gives a user a newer key: new images are encrypted with it, those there are with their own.
func (t *txn) addUserKey(k *PutKey) (Result, error) {
	if err := k.check(); err != nil {
		return reject(err), nil
	}
	current, err := CurrentUserKey(t.tx, k.User)
	if err != nil {
		return Result{}, err
	}
	switch {
	case current == nil:
		return reject(errNoUser(k.User)), nil
	case k.KeyID != current.KeyID+1 || k.KeyID == 0:
		return reject(image.Errorf(image.KindStale, "user %q has the key %d", k.User, current.KeyID)), nil
	}
	if out, err := t.outgoing(k.Wrapped); out || err != nil {
		return rejectOutgoing(), err
	}
	t.events = append(t.events, Event{UserKey: k})
	return Result{Key: k}, t.put(userKeyKey(k.User, k.KeyID), k)
}

// Removals returns the removals of users that have something left to do, in their order.
func Removals(r Reader) (all []*Removal, err error) {
	err = scan(r, []byte{removalTable}, nil, func(_ []byte, x *Removal) bool {
		all = append(all, x)
		return true
	})
	return all, err
}

func (t *txn) removeUser(c *RemoveUser) (Result, error) {
	if err := image.CheckUser(c.User); err != nil {
		return reject(err), nil
	}
	removals, err := Removals(t.tx)
	if err != nil {
		return Result{}, err
	}
	current, err := CurrentUserKey(t.tx, c.User)
	if err != nil {
		return Result{}, err
	}
	if current == nil {
		for _, x := range slices.Backward(removals) {
			if x.User == c.User {
				return Result{Removal: x}, nil
			}
		}
		return reject(errNoUser(c.User)), nil
	}
	if len(removals) >= removalsMax {
		return reject(image.Errorf(image.KindOverload, "%d users are being removed already", len(removals)).
			WithHint("start the nodes that are down, and see imgcluster user list")), nil
	}
	a, err := getAccounts(t.tx)
	if err != nil {
		return Result{}, err
	}
	if err := t.dropUser(a, c.User); err != nil {
		return Result{}, err
	}
	a.Users--
	a.Floor = max(a.Floor, current.KeyID)
	a.Removals++
	x := &Removal{Number: a.Removals, User: c.User, Since: c.Since}
	m, err := GetMembership(t.tx)
	if err != nil {
		return Result{}, err
	}
	if m != nil {
		x.Shards = m.dataShards(t.shard)
		for _, member := range m.Members {
			x.Nodes = append(x.Nodes, member.ID)
		}
	}
	t.events = append(t.events, Event{Removal: x})
	if err := t.put([]byte{accountsKey}, a); err != nil {
		return Result{}, err
	}
	return Result{Removal: x}, t.saveRemoval(x)
}

// dropUser deletes a user's keys and access keys.
func (t *txn) dropUser(a *accounts, user string) error {
	var keys []*AccessKey
	err := scan(t.tx, accessKeyKey(user, ""), nil, func(_ []byte, k *AccessKey) bool {
		keys = append(keys, k)
		return true
	})
	if err != nil {
		return err
	}
	for _, k := range keys {
		if err := t.dropAccessKey(a, k); err != nil {
			return err
		}
	}
	var wrapped [][]byte
	prefix := ofUser(userKeyTable, user)
	err = t.tx.Scan(prefix, prefixEnd(prefix), func(k, _ []byte) bool {
		wrapped = append(wrapped, bytes.Clone(k))
		return true
	})
	for i := 0; err == nil && i < len(wrapped); i++ {
		err = t.tx.Delete(wrapped[i])
	}
	if err != nil {
		return err
	}
	return t.tx.Delete(ofUser(rewrapTable, user))
}

// saveRemoval writes a removal, or deletes it when nothing is left to do.
func (t *txn) saveRemoval(x *Removal) error {
	if len(x.Shards) == 0 && len(x.Nodes) == 0 {
		return t.tx.Delete(removalKey(x.Number))
	}
	return t.put(removalKey(x.Number), x)
}

func (t *txn) removed(c *Removed) (Result, error) {
	x := &Removal{}
	known, err := get(t.tx, removalKey(c.Removal), x)
	if err != nil || !known {
		return Result{}, err
	}
	x.Shards = slices.DeleteFunc(x.Shards, func(shard uint64) bool { return shard == c.Shard })
	x.Nodes = slices.DeleteFunc(x.Nodes, func(id image.NodeID) bool { return id == c.Node })
	t.events = append(t.events, Event{Removal: x})
	return Result{Removal: x}, t.saveRemoval(x)
}

// addToRemovals has a new member take part in the removals that are not complete: others may send it parts of
// their logs from before.
func (t *txn) addToRemovals(id image.NodeID) error {
	all, err := Removals(t.tx)
	for i := 0; err == nil && i < len(all); i++ {
		all[i].Nodes = append(all[i].Nodes, id)
		t.events = append(t.events, Event{Removal: all[i]})
		err = t.saveRemoval(all[i])
	}
	return err
}

// purge deletes images of a removed user. Copies that were reported before count no more, since they are
// encrypted under a key that is destroyed; their nodes give up its uploads.
func (t *txn) purge(c *Purge) (Result, error) {
	if err := image.CheckUser(c.User); err != nil {
		return reject(err), nil
	}
	var last uint64
	if _, err := get(t.tx, []byte{purgedKey}, &last); err != nil {
		return Result{}, err
	}
	if c.Removal <= last {
		return Result{Purged: &Purged{}}, nil
	}
	t.events = append(t.events, Event{Purge: c})
	var recs []*image.Record
	err := ListRecords(t.tx, c.User, "", "", func(rec *image.Record) bool {
		recs = append(recs, rec)
		return len(recs) <= purgedAtOnce
	})
	if err != nil {
		return Result{}, err
	}
	p := &Purged{Images: min(len(recs), purgedAtOnce), More: len(recs) > purgedAtOnce}
	if err := t.remove(recs[:p.Images]...); err != nil {
		return Result{}, err
	}
	if !p.More {
		if p.More, err = t.forgetUser(c.User, purgedAtOnce); err != nil {
			return Result{}, err
		}
	}
	if err := t.changeFinished(c.User, func(f *finished, _ *userQueue) error {
		f.queue.Floor = t.index
		return nil
	}); err != nil {
		return Result{}, err
	}
	if !p.More {
		err = t.put([]byte{purgedKey}, c.Removal)
	}
	return Result{Purged: p}, err
}
