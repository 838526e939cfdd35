package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"imgcluster/cluster/access"
	"imgcluster/cluster/bootstrap"
	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/ingest"
	"imgcluster/config"
	"imgcluster/crypto"
)

// keyringMax bounds the user keys held in memory; any of them can be unwrapped again.
const keyringMax = 4096

// keyring unwraps the users' keys, which the system shard keeps wrapped by the master key, and makes users.
// It gives no key of a removed user from the moment that this node applies the removal, in the system shard,
// or the purge that follows it, in a data shard. It is safe for concurrent use.
type keyring struct {
	master *crypto.Ring
	log    *shardLogs
	// refresh has the node take what its state of the system shard says of the master key.
	refresh func()
	// newest reports whether this node has caught up with the system shard since its start.
	newest func() bool

	mu       sync.Mutex
	keys     map[keyName]crypto.Key
	ids      map[string]keyIDs
	forgot   uint64            // how often keys were forgotten: what was read before that is not kept
	lagging  map[string]uint64 // users purged in a data shard and not removed in the system shard here yet
	removals uint64            // the last removal applied in the system shard here
}

type keyName struct {
	user string
	id   uint32
}

// keyIDs are the IDs of a user's keys: new images are encrypted with the current one. Their checks and
// digests are sealed under the first one, whichever is current: what is compared, of one upload on several
// nodes or of a condition with what is stored, must not differ because the key was rotated meanwhile.
type keyIDs struct{ first, current uint32 }

func newKeyring(master *crypto.Ring, log *shardLogs, refresh func(), newest func() bool) *keyring {
	k := &keyring{
		master: master, log: log, refresh: refresh, newest: newest, lagging: map[string]uint64{},
	}
	k.reload(0)
	return k
}

// reload forgets all keys. last is the last removal that this node has applied in the system shard.
func (k *keyring) reload(last uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys = map[keyName]crypto.Key{}
	k.ids = map[string]keyIDs{}
	k.applied(last)
}

// applied takes note of a removal that was applied in the system shard. The caller holds mu.
func (k *keyring) applied(removal uint64) {
	k.removals = max(k.removals, removal)
	maps.DeleteFunc(k.lagging, func(_ string, n uint64) bool { return n <= k.removals })
	k.forgot++
}

// apply takes the events of commands that were applied, before anything acts on them.
func (k *keyring) apply(events []catalog.Event) {
	for _, e := range events {
		switch {
		case e.Removal != nil:
			k.forget(e.Removal.User, e.Removal.Number, false)
		case e.UserKey != nil:
			k.renewed(e.UserKey.User)
		case e.Purge != nil:
			k.forget(e.Purge.User, e.Purge.Removal, true)
		}
	}
}

// renewed takes note that a user has another current key.
func (k *keyring) renewed(user string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forgot++
	delete(k.ids, user)
}

// forget drops a removed user's keys. By a purge this node may learn of the removal before it has applied it
// in the system shard: until then it does not believe its own state there.
func (k *keyring) forget(user string, removal uint64, byPurge bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case removal <= k.removals:
		return
	case byPurge:
		k.lagging[user] = removal
		k.forgot++
	default:
		k.applied(removal)
	}
	delete(k.ids, user)
	maps.DeleteFunc(k.keys, func(n keyName, _ crypto.Key) bool { return n.user == user })
}

// zero overwrites all keys, the master key among them, of which nobody has any use now.
func (k *keyring) zero() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range k.keys {
		key.Zero()
	}
	clear(k.keys)
	k.master.Zero()
}

// Get returns one of a user's keys. The error is KindForbidden when there is none.
func (k *keyring) Get(ctx context.Context, user string, id uint32) (crypto.Key, error) {
	k.mu.Lock()
	key, ok := k.keys[keyName{user, id}]
	k.mu.Unlock()
	if ok {
		return key, nil
	}
	_, key, err := k.read(ctx, user, func(keyIDs) uint32 { return id })
	return key, err
}

// currentKey returns the key that new images of a user are encrypted with, and its ID. The error is
// KindForbidden when there is no such user.
func (k *keyring) currentKey(ctx context.Context, user string) (id uint32, key crypto.Key, err error) {
	return k.one(ctx, user, func(ids keyIDs) uint32 { return ids.current })
}

// firstKey returns the key that checks and digests of a user's images are sealed under, and its ID. The error
// is KindForbidden when there is no such user.
func (k *keyring) firstKey(ctx context.Context, user string) (id uint32, key crypto.Key, err error) {
	return k.one(ctx, user, func(ids keyIDs) uint32 { return ids.first })
}

// one returns that of a user's keys which is chosen by their IDs.
func (k *keyring) one(
	ctx context.Context, user string, which func(keyIDs) uint32,
) (id uint32, key crypto.Key, err error) {
	if id, key, ok := k.kept(user, which); ok {
		return id, key, nil
	}
	return k.read(ctx, user, which)
}

// kept returns one of a user's keys where it is held in memory.
func (k *keyring) kept(user string, which func(keyIDs) uint32) (id uint32, key crypto.Key, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ids, ok := k.ids[user]
	if ok {
		id = which(ids)
		key, ok = k.keys[keyName{user, id}]
	}
	return id, key, ok
}

// read finds one of a user's wrapped keys in this node's state of the system shard, or in the newest one when
// this may lag behind, unwraps it and keeps it.
func (k *keyring) read(
	ctx context.Context, user string, which func(keyIDs) uint32,
) (uint32, crypto.Key, error) {
	k.mu.Lock()
	forgot := k.forgot
	_, lags := k.lagging[user]
	k.mu.Unlock()
	var ids keyIDs
	var stored *catalog.PutKey
	get := func(r catalog.Reader) error {
		stored = nil
		first, err := catalog.FirstUserKey(r, user)
		if err != nil || first == nil {
			return err
		}
		current, err := catalog.CurrentUserKey(r, user)
		if err != nil {
			return err
		}
		ids = keyIDs{first.KeyID, current.KeyID}
		switch id := which(ids); id {
		case first.KeyID:
			stored = first
		case current.KeyID:
			stored = current
		default:
			stored, err = catalog.GetUserKey(r, user, id)
		}
		return err
	}
	var err error
	if !lags && k.newest() {
		err = k.log.View(systemShard, get)
	}
	if err == nil && stored == nil {
		err = k.log.Read(ctx, systemShard, get)
	}
	if err == nil && stored == nil {
		err = image.Errorf(image.KindForbidden, "there is no user %q, or it was removed", user).
			WithHint("an administrator makes one with imgcluster user add")
	}
	if err != nil {
		return 0, crypto.Key{}, err
	}
	key, err := k.unwrap(stored)
	if err == nil {
		k.keep(stored, key, ids, forgot)
	}
	return stored.KeyID, key, err
}

// keep keeps a key that was read, unless keys were forgotten since.
func (k *keyring) keep(stored *catalog.PutKey, key crypto.Key, ids keyIDs, forgot uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.forgot != forgot {
		return
	}
	if len(k.keys) >= keyringMax {
		for name := range k.keys {
			delete(k.keys, name)
			delete(k.ids, name.user)
			break
		}
	}
	k.keys[keyName{stored.User, stored.KeyID}] = key
	k.ids[stored.User] = ids
}

func (k *keyring) unwrap(stored *catalog.PutKey) (crypto.Key, error) {
	key, err := k.master.UnwrapUserKey(stored.User, stored.KeyID, stored.Wrapped)
	if err != nil {
		return crypto.Key{}, fmt.Errorf("key %d of user %q: %w", stored.KeyID, stored.User, err)
	}
	return key, nil
}

// createTries bounds how often a user's first key is made: its ID has to be above those of all removed users,
// of which one may be removed meanwhile.
const createTries = 4

// create makes a user, and returns it as it is in the log: when two nodes make it at once, the first one.
func (k *keyring) create(ctx context.Context, user string) (made *catalog.PutKey, err error) {
	var id uint32
	first := func(r catalog.Reader) (err error) {
		id, err = catalog.FirstKeyID(r)
		return err
	}
	err = k.log.View(systemShard, first)
	for range createTries {
		if err != nil {
			return nil, err
		}
		var wrapped []byte
		if wrapped, err = k.master.Sealing().WrapUserKey(user, id, crypto.NewKey()); err != nil {
			return nil, err
		}
		var r catalog.Result
		r, err = k.log.Do(ctx, systemShard, catalog.Command{PutKey: &catalog.PutKey{
			User: user, KeyID: id, Wrapped: wrapped, Created: time.Now().UTC(),
		}})
		if image.KindOf(err) != image.KindStale {
			return r.Key, err
		}
		err = k.log.Read(ctx, systemShard, first)
		k.refresh()
	}
	return nil, image.Errorf(image.KindOverload, "users are removed faster than user %q can be made", user).
		WithHint("try again")
}

// ensure makes a user for its first image, where the sender of the request may.
func (k *keyring) ensure(ctx context.Context, user string) error {
	_, _, err := k.currentKey(ctx, user)
	// A node forwards what it has allowed. It may be the upload of a user who was removed meanwhile: nobody
	// is made anew until all the user's uploads have ended.
	if p := access.From(ctx); image.KindOf(err) == image.KindForbidden && (p.Admin() || p.Node != 0) {
		_, err = k.create(ctx, user)
	}
	return err
}

// Check implements ingest.Sealer.
func (k *keyring) Check(ctx context.Context, user string, id image.ID) (ingest.Check, error) {
	keyID, key, err := k.firstKey(ctx, user)
	if err != nil {
		return nil, err
	}
	c, err := crypto.NewCheck(key, id)
	return check{c, keyID}, err
}

// check is the check of an upload under one of its user's keys.
type check struct {
	*crypto.Check
	key uint32
}

// Sum implements ingest.Check.
func (c check) Sum() image.Check { return image.Check{Key: c.key, MAC: c.Check.Sum()} }

// Seal implements ingest.Sealer.
func (k *keyring) Seal(ctx context.Context, user string, d image.Digest) (image.SealedDigest, error) {
	_, key, err := k.firstKey(ctx, user)
	if err != nil {
		return image.SealedDigest{}, err
	}
	s, err := crypto.NewDigestSealer(key)
	if err != nil {
		return image.SealedDigest{}, err
	}
	return s.Seal(d), nil
}

// sealConditions seals the digests among the tags of conditions, which are asked of sealed records: those
// under the user's first key.
func (k *keyring) sealConditions(
	ctx context.Context, user string, c image.Conditions,
) (image.Conditions, error) {
	return c.Sealed(func(d image.Digest) (image.SealedDigest, error) {
		sealed, err := k.Seal(ctx, user, d)
		if image.KindOf(err) == image.KindForbidden { // there is no such user, and so nothing of that digest
			return image.SealedDigest{}, nil
		}
		return sealed, err
	})
}

// keySource is where this host has the master key.
func keySource(cfg *config.Config) crypto.KeySource {
	return crypto.KeySource{Command: cfg.KeyCommand(), File: cfg.Local.MasterKeyFile}
}

// loadMaster loads the master keys of this host. A cluster on loopback makes its own at its first start.
func loadMaster(ctx context.Context, cfg *config.Config) (crypto.MasterKeys, error) {
	source := keySource(cfg)
	if cfg.Loopback() && !anyData(cfg) {
		return source.LoadOrCreate(ctx)
	}
	return source.Load(ctx)
}

// anyData reports whether a node of a loopback cluster has run before. Then the cluster has a master key, and
// a new one must not hide that it was lost.
func anyData(cfg *config.Config) bool {
	return slices.ContainsFunc(cfg.Cluster.Nodes,
		func(m config.Node) bool { return bootstrap.Claimed(cfg.DataDir(m.ID)) })
}
