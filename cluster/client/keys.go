package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// MasterKey returns the state of the master key.
func (c *Client) MasterKey(ctx context.Context) (state wire.MasterKey, err error) {
	r, err := c.ask(ctx, http.MethodGet, wire.MasterKeyPath, nil, nil)
	if err == nil {
		err = r.decode(&state)
	}
	return state, err
}

// ChangeMasterKey begins or ends a change of the master key. Repeating it does no harm.
func (c *Client) ChangeMasterKey(ctx context.Context, op string) (state wire.MasterKey, err error) {
	body, err := json.Marshal(wire.MasterKeyChange{Op: op})
	if err != nil {
		return state, err
	}
	r, err := c.ask(ctx, http.MethodPost, wire.MasterKeyPath,
		http.Header{"Content-Type": {wire.DocumentType}}, body)
	if err == nil {
		err = r.decode(&state)
	}
	return state, err
}

// RotateUserKey gives a user a newer key for new images, and returns it.
func (c *Client) RotateUserKey(ctx context.Context, user string) (key wire.UserKey, err error) {
	if err := image.CheckUser(user); err != nil {
		return key, err
	}
	r, err := c.ask(ctx, http.MethodPost, wire.UserKeyPath(user), nil, nil)
	if err == nil {
		err = r.decode(&key)
	}
	return key, err
}

// UserKeys calls fn with all users' keys, wrapped by the master key, until it returns an error.
func (c *Client) UserKeys(ctx context.Context, fn func(wire.UserKey) error) error {
	for after := ""; ; {
		var page wire.UserKeyList
		r, err := c.ask(ctx, http.MethodGet, wire.UserKeysPath+"?after="+url.QueryEscape(after), nil, nil)
		if err == nil {
			err = r.decode(&page)
		}
		if err != nil {
			return err
		}
		for _, k := range page.Keys {
			if err := fn(k); err != nil {
				return err
			}
		}
		if after = page.Next; after == "" {
			return nil
		}
	}
}
