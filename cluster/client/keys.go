package client

import (
	"context"
	"net/http"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// MasterKey returns the state of the master key.
func (c *Client) MasterKey(ctx context.Context) (state wire.MasterKey, err error) {
	err = c.call(ctx, http.MethodGet, wire.MasterKeyPath, nil, &state)
	return state, err
}

// ChangeMasterKey begins or ends a change of the master key: op is wire.MasterKeyRotate or MasterKeyFinish.
// Repeating it does no harm. KindInvalid: it cannot be done yet, and the error says what is missing.
func (c *Client) ChangeMasterKey(ctx context.Context, op string) (state wire.MasterKey, err error) {
	err = c.call(ctx, http.MethodPost, wire.MasterKeyPath, wire.MasterKeyChange{Op: op}, &state)
	return state, err
}

// RotateUserKey gives a user a newer key for new images, and returns it. When an answer is lost, it gives one
// more.
func (c *Client) RotateUserKey(ctx context.Context, user string) (key wire.UserKey, err error) {
	if err = image.CheckUser(user); err == nil {
		err = c.call(ctx, http.MethodPost, wire.UserKeyPath(user), nil, &key)
	}
	return key, err
}

// Rewrap begins to encrypt all copies of a user's images that are under older keys again, and returns how far
// that is. Repeating it does no harm.
func (c *Client) Rewrap(ctx context.Context, user string) (state wire.Rewrap, err error) {
	if err = image.CheckUser(user); err == nil {
		err = c.call(ctx, http.MethodPost, wire.RewrapPath(user), nil, &state)
	}
	return state, err
}

// RewrapState returns how far a Rewrap is.
func (c *Client) RewrapState(ctx context.Context, user string) (state wire.Rewrap, err error) {
	if err = image.CheckUser(user); err == nil {
		err = c.call(ctx, http.MethodGet, wire.RewrapPath(user), nil, &state)
	}
	return state, err
}

// UserKeys calls fn with all users' keys, wrapped by the master key, until it returns an error.
func (c *Client) UserKeys(ctx context.Context, fn func(wire.UserKey) error) error {
	keys := pages("users' keys", false, func(after string) ([]wire.UserKey, string, error) {
		var page wire.UserKeyList
		err := c.call(ctx, http.MethodGet, paged(wire.UserKeysPath, after, ""), nil, &page)
		return page.Keys, page.Next, err
	})
	for k, err := range keys {
		if err == nil {
			err = fn(k)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
