package cluster

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/access"
	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// accounts keeps users and access keys, in the system shard: it implements api.Accounts. It is safe for
// concurrent use.
type accounts struct {
	log     *shardLogs
	keyring *keyring
	sealer  *access.Sealer
	access  *access.Keys
	timeout time.Duration // of reading from the system shard
	logger  *zap.Logger
	// changed is called when a removal begins or goes on.
	changed func()

	mu       sync.Mutex
	removing map[uint64]*catalog.Removal // those of which images are left, by number
}

// findsMax bounds the access keys that are looked up at once in the newest state of the system shard.
const findsMax = 16

func newAccounts(
	log *shardLogs, keyring *keyring, sealer *access.Sealer, timeout time.Duration, logger *zap.Logger,
) *accounts {
	a := &accounts{
		log: log, keyring: keyring, sealer: sealer, timeout: timeout, logger: logger, changed: func() {},
		removing: map[uint64]*catalog.Removal{},
	}
	slots := make(chan struct{}, findsMax)
	a.access = access.NewKeys(sealer, func(ctx context.Context, id string) (k *catalog.AccessKey, err error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-ctx.Done():
			return nil, image.Errorf(image.KindOverload, "too many access keys are looked up at once").
				WithHint("try again, or ask another node").WithRetry(time.Second)
		}
		err = log.Read(ctx, systemShard, func(r catalog.Reader) (err error) {
			k, err = catalog.GetAccessKey(r, id)
			return err
		})
		return k, err
	})
	return a
}

// apply takes the events of commands that were applied, before anything acts on them.
func (a *accounts) apply(events []catalog.Event) {
	a.keyring.apply(events)
	a.access.Apply(events)
	for _, e := range events {
		if e.Removal == nil {
			continue
		}
		a.mu.Lock()
		if len(e.Removal.Shards) > 0 {
			a.removing[e.Removal.Number] = e.Removal
		} else {
			delete(a.removing, e.Removal.Number)
		}
		a.mu.Unlock()
		a.changed()
	}
}

// reload reads what this node keeps of accounts from its state of the system shard, which is the newest.
func (a *accounts) reload() {
	err := a.log.View(systemShard, func(r catalog.Reader) error {
		all, err := catalog.Removals(r)
		if err != nil {
			return err
		}
		last, err := catalog.LastRemoval(r)
		if err != nil {
			return err
		}
		a.keyring.reload(last)
		a.mu.Lock()
		clear(a.removing)
		for _, x := range all {
			if len(x.Shards) > 0 {
				a.removing[x.Number] = x
			}
		}
		a.mu.Unlock()
		return a.access.Load(func(fn func(*catalog.AccessKey)) error { return catalog.AccessKeys(r, fn) })
	})
	if err != nil {
		a.logger.Warn("access keys not read", zap.Error(err))
	}
	a.changed()
}

// removed reports whether a user was removed and still has records, which nobody can read.
func (a *accounts) removed(user string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, x := range a.removing {
		if x.User == user {
			return true
		}
	}
	return false
}

func (a *accounts) propose(ctx context.Context, c catalog.Command) (catalog.Result, error) {
	r, err := a.log.Propose(ctx, systemShard, c)
	if err == nil {
		err = r.Err()
	}
	return r, err
}

func (a *accounts) read(ctx context.Context, fn func(catalog.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return a.log.Read(ctx, systemShard, fn)
}

// AccessKeys implements api.Accounts.
func (a *accounts) AccessKeys(
	ctx context.Context, of, after string, limit int,
) (list wire.KeyList, err error) {
	var keys []*catalog.AccessKey
	err = a.read(ctx, func(r catalog.Reader) (err error) {
		keys, err = catalog.ListAccessKeys(r, of, after, limit)
		return err
	})
	list.Keys = make([]wire.AccessKey, len(keys))
	for i, k := range keys {
		list.Keys[i] = shown(k)
	}
	if len(keys) == limit {
		list.Next = keys[limit-1].ID
	}
	return list, err
}

// shown is an access key without its secret.
func shown(k *catalog.AccessKey) wire.AccessKey {
	return wire.AccessKey{ID: k.ID, User: k.User, Role: k.Role, Created: k.Created, Expires: k.Expires}
}

// AddAccessKey implements api.Accounts. It makes the user whom the key belongs to where there is none.
func (a *accounts) AddAccessKey(ctx context.Context, k wire.KeyRequest) (wire.NewKey, error) {
	now := time.Now().UTC()
	if err := image.CheckRole(k.Role, k.User); err != nil {
		return wire.NewKey{}, err
	}
	if !k.Expires.IsZero() && !k.Expires.After(now) {
		return wire.NewKey{}, image.Errorf(image.KindInvalid, "the key would have expired at %s; it is %s",
			k.Expires.UTC().Format(time.RFC3339), now.Format(time.RFC3339)).
			WithHint("give a time to come, or none")
	}
	if k.User != "" {
		if err := a.keyring.ensure(ctx, k.User); err != nil {
			return wire.NewKey{}, err
		}
	}
	made, secret := a.sealer.New(k.User, k.Role, now, k.Expires)
	_, err := a.propose(ctx, catalog.Command{AddAccessKey: &made})
	if image.KindOf(err) == image.KindStale { // the master key is changing, and this node had not heard of it
		if err = a.read(ctx, func(catalog.Reader) error { return nil }); err == nil {
			a.keyring.refresh()
			made, secret = a.sealer.New(k.User, k.Role, now, k.Expires)
			_, err = a.propose(ctx, catalog.Command{AddAccessKey: &made})
		}
	}
	if err != nil {
		return wire.NewKey{}, err
	}
	a.logger.Info("access key added", zap.String("key", made.ID), zap.String("user", made.User),
		zap.String("role", string(made.Role)), zap.Stringer("by", access.From(ctx)))
	return wire.NewKey{AccessKey: shown(&made), Secret: secret.Reveal()}, nil
}

// RemoveAccessKey implements api.Accounts.
func (a *accounts) RemoveAccessKey(ctx context.Context, id, of string) error {
	_, err := a.propose(ctx, catalog.Command{RemoveAccessKey: &catalog.RemoveAccessKey{ID: id, Of: of}})
	if err == nil {
		a.logger.Info("access key removed", zap.String("key", id), zap.Stringer("by", access.From(ctx)))
	}
	return err
}

// Users implements api.Accounts.
func (a *accounts) Users(ctx context.Context, after string, limit int) (list wire.UserList, err error) {
	var users []*catalog.PutKey
	var removals []*catalog.Removal
	err = a.read(ctx, func(r catalog.Reader) (err error) {
		if users, err = catalog.ListUsers(r, after, limit); err == nil {
			removals, err = catalog.Removals(r)
		}
		return err
	})
	list.Users = make([]wire.User, len(users))
	for i, u := range users {
		list.Users[i] = wire.User{Name: u.User, Created: u.Created}
	}
	list.Removals = make([]wire.Removal, len(removals))
	for i, x := range removals {
		list.Removals[i] = wire.Removal(*x)
	}
	if len(users) == limit {
		list.Next = users[limit-1].User
	}
	return list, err
}

// AddUser implements api.Accounts. Of a user that there is it changes nothing.
func (a *accounts) AddUser(ctx context.Context, name string) (wire.User, error) {
	if err := image.CheckUser(name); err != nil {
		return wire.User{}, err
	}
	made, err := a.keyring.create(ctx, name)
	if err != nil {
		return wire.User{}, err
	}
	a.logger.Info("user added", zap.String("user", name), zap.Stringer("by", access.From(ctx)))
	return wire.User{Name: made.User, Created: made.Created}, nil
}

// RemoveUser implements api.Accounts.
func (a *accounts) RemoveUser(ctx context.Context, name string) (wire.Removal, error) {
	r, err := a.propose(ctx, catalog.Command{RemoveUser: &catalog.RemoveUser{
		User: name, Since: time.Now().UTC(),
	}})
	if err != nil {
		return wire.Removal{}, err
	}
	a.logger.Info("user removed, its keys are destroyed", zap.String("user", name),
		zap.Uint64("removal", r.Removal.Number), zap.Stringer("by", access.From(ctx)))
	return wire.Removal(*r.Removal), nil
}
