package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"imgcluster/cluster/bootstrap"
	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/config"
	"imgcluster/crypto"
)

// keyringMax bounds the user keys held in memory; any of them can be unwrapped again.
const keyringMax = 4096

// firstKeyID is the number of a user's first key.
const firstKeyID = 1

// keyring unwraps the users' keys, which the system shard keeps wrapped by the master key, and makes
// a user's first one.
type keyring struct {
	master *crypto.MasterKey
	log    *shardLogs

	mu   sync.Mutex
	keys map[keyName]crypto.Key
}

type keyName struct {
	user string
	id   uint32
}

// current returns the key that new images of a user are encrypted with, the one with firstKeyID.
func (k *keyring) current(ctx context.Context, user string) (crypto.Key, error) {
	key, err := k.Get(ctx, user, firstKeyID)
	if image.KindOf(err) == image.KindNotFound {
		key, err = k.create(ctx, user)
	}
	return key, err
}

// Get returns one of a user's keys.
func (k *keyring) Get(ctx context.Context, user string, id uint32) (crypto.Key, error) {
	name := keyName{user, id}
	k.mu.Lock()
	key, ok := k.keys[name]
	k.mu.Unlock()
	if ok {
		return key, nil
	}
	var stored *catalog.PutKey
	find := func(r catalog.Reader) (err error) {
		stored, err = catalog.GetUserKey(r, user, id)
		return err
	}
	err := k.log.View(systemShard, find)
	if err == nil && stored == nil { // this node may lag behind
		err = k.log.Read(ctx, systemShard, find)
	}
	if err == nil && stored == nil {
		err = image.Errorf(image.KindNotFound, "user %q has no key %d", user, id)
	}
	if err != nil {
		return crypto.Key{}, err
	}
	return k.unwrap(stored)
}

// create makes a user's first key; when two nodes do at once, the first in the log is it.
func (k *keyring) create(ctx context.Context, user string) (crypto.Key, error) {
	wrapped, err := k.master.WrapUserKey(user, firstKeyID, crypto.NewKey())
	if err != nil {
		return crypto.Key{}, err
	}
	r, err := k.log.Propose(ctx, systemShard, catalog.Command{PutKey: &catalog.PutKey{
		User: user, KeyID: firstKeyID, Wrapped: wrapped,
	}})
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		return crypto.Key{}, err
	}
	return k.unwrap(r.Key)
}

func (k *keyring) unwrap(stored *catalog.PutKey) (crypto.Key, error) {
	key, err := k.master.UnwrapUserKey(stored.User, stored.KeyID, stored.Wrapped)
	if err != nil {
		return crypto.Key{}, fmt.Errorf("key %d of user %q: %w", stored.KeyID, stored.User, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.keys) >= keyringMax {
		for name := range k.keys {
			delete(k.keys, name)
			break
		}
	}
	k.keys[keyName{stored.User, stored.KeyID}] = key
	return key, nil
}

// loadMaster loads the master keys of this host. A cluster on loopback makes its own at its first start.
func loadMaster(ctx context.Context, cfg *config.Config) (crypto.MasterKeys, error) {
	source := crypto.KeySource{Command: cfg.KeyCommand(), File: cfg.Local.MasterKeyFile}
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
