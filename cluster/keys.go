package cluster

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/crypto"
)

// keys implements api.Keys.
type keys struct {
	*masterKeys
	*rewraps
	users *keyring
}

// RotateUserKey implements api.Keys.
func (k keys) RotateUserKey(ctx context.Context, user string) (wire.UserKey, error) {
	made, err := k.users.rotate(ctx, user)
	if err != nil {
		return wire.UserKey{}, err
	}
	return wire.UserKey{User: made.User, Key: made.KeyID, Wrapped: made.Wrapped}, nil
}

// UserKeys implements api.Keys. A place is USER/NUMBER.
func (k keys) UserKeys(ctx context.Context, after string, limit int) (wire.UserKeyList, error) {
	user, id, err := parsePlace(after)
	list := wire.UserKeyList{Keys: []wire.UserKey{}}
	if err != nil {
		return list, err
	}
	ctx, cancel := context.WithTimeout(ctx, k.masterKeys.timeout)
	defer cancel()
	err = k.masterKeys.log.Read(ctx, systemShard, func(r catalog.Reader) error {
		found, err := catalog.UserKeys(r, user, id, limit)
		for _, x := range found {
			list.Keys = append(list.Keys, wire.UserKey{User: x.User, Key: x.KeyID, Wrapped: x.Wrapped})
		}
		return err
	})
	if n := len(list.Keys); n == limit {
		list.Next = fmt.Sprintf("%s/%d", list.Keys[n-1].User, list.Keys[n-1].Key)
	}
	return list, err
}

func parsePlace(after string) (user string, id uint32, err error) {
	if after == "" {
		return "", 0, nil
	}
	i := strings.LastIndexByte(after, '/')
	n, err := strconv.ParseUint(after[i+1:], 10, 32)
	if i < 0 || err != nil || image.CheckUser(after[:i]) != nil {
		return "", 0, image.Errorf(image.KindInvalid, "%.200q is not a place in the list of keys", after).
			WithHint("give the next of the page before as after")
	}
	return after[:i], uint32(n), nil
}

// rotate gives a user a newer key.
func (k *keyring) rotate(ctx context.Context, user string) (made *catalog.PutKey, err error) {
	if err := image.CheckUser(user); err != nil {
		return nil, err
	}
	for range createTries {
		var current *catalog.PutKey
		err = k.log.Read(ctx, systemShard, func(r catalog.Reader) (err error) {
			current, err = catalog.CurrentUserKey(r, user)
			return err
		})
		if err == nil && current == nil {
			err = image.Errorf(image.KindNotFound, "there is no user %q", user).WithHint("see imgcluster user list")
		}
		if err != nil {
			return nil, err
		}
		k.refresh()
		id := current.KeyID + 1
		var wrapped []byte
		if wrapped, err = k.master.Sealing().WrapUserKey(user, id, crypto.NewKey()); err != nil {
			return nil, err
		}
		var r catalog.Result
		r, err = k.log.Do(ctx, systemShard, catalog.Command{AddUserKey: &catalog.PutKey{
			User: user, KeyID: id, Wrapped: wrapped, Created: time.Now().UTC(),
		}})
		if image.KindOf(err) != image.KindStale { // else somebody has made one meanwhile
			return r.Key, err
		}
	}
	return nil, err
}
