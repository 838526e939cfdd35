package client

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// change sends a request with a JSON body, none when in is nil, and reads the answer into out, if not nil.
func (c *Client) change(ctx context.Context, method, path string, in, out any) error {
	header := http.Header{}
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
		header.Set("Content-Type", wire.DocumentType)
	}
	r, err := c.ask(ctx, method, path, header, body)
	if err != nil {
		return err
	}
	if out == nil {
		r.close()
		return nil
	}
	return r.decode(out)
}

// AddAccessKey makes an access key. Its secret is in the answer alone.
func (c *Client) AddAccessKey(ctx context.Context, k wire.KeyRequest) (made wire.NewKey, err error) {
	return made, c.change(ctx, http.MethodPost, wire.KeysPath, k, &made)
}

// RemoveAccessKey removes an access key.
func (c *Client) RemoveAccessKey(ctx context.Context, id string) error {
	return c.change(ctx, http.MethodDelete, wire.KeysPath+"/"+url.PathEscape(id), nil, nil)
}

// AddUser makes a user. Of one that there is it changes nothing.
func (c *Client) AddUser(ctx context.Context, name string) (made wire.User, err error) {
	return made, c.change(ctx, http.MethodPost, wire.UsersPath, wire.UserRequest{Name: name}, &made)
}

// RemoveUser destroys a user's keys, and returns what is left to do after that; see UserPage.
func (c *Client) RemoveUser(ctx context.Context, name string) (left wire.Removal, err error) {
	if err := image.CheckUser(name); err != nil {
		return left, err
	}
	return left, c.change(ctx, http.MethodDelete, wire.UsersPath+"/"+url.PathEscape(name), nil, &left)
}

// UserPage returns the users whose names come after `after`, as many as a node lists at once, and all
// removals that are not complete.
func (c *Client) UserPage(ctx context.Context, after string) (page wire.UserList, err error) {
	return page, c.change(ctx, http.MethodGet, paged(wire.UsersPath, after, ""), nil, &page)
}

// AccessKeys yields the access keys, those of one user where user is not empty. It ends after an error.
func (c *Client) AccessKeys(ctx context.Context, user string) iter.Seq2[wire.AccessKey, error] {
	return func(yield func(wire.AccessKey, error) bool) {
		for after := ""; ; {
			var page wire.KeyList
			err := c.change(ctx, http.MethodGet, paged(wire.KeysPath, after, user), nil, &page)
			if err == nil && page.Next != "" && page.Next <= after {
				err = image.Errorf(image.KindInternal, "the list of keys goes on at %.64q again", page.Next)
			}
			if err != nil {
				yield(wire.AccessKey{}, err)
				return
			}
			for _, k := range page.Keys {
				if !yield(k, nil) {
					return
				}
			}
			if after = page.Next; after == "" {
				return
			}
		}
	}
}

// paged is the path of a page of a list.
func paged(path, after, user string) string {
	q := wire.ListQuery{After: after}.Values()
	if user != "" {
		q.Set("user", user)
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}
