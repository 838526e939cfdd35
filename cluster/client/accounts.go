package client

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// call sends a request with a JSON body, none when in is nil, and reads the answer into out, if not nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
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

// AddAccessKey makes an access key, and its user when there is none. Its secret is in the answer alone: when
// that is lost, it is asked for again, and a key that nobody has stays until it is removed.
func (c *Client) AddAccessKey(ctx context.Context, k wire.KeyRequest) (made wire.NewKey, err error) {
	err = c.call(ctx, http.MethodPost, wire.KeysPath, k, &made)
	return made, err
}

// RemoveAccessKey removes an access key: KindNotFound when there is none, which may
// be the answer to the second try of a removal that was done.
func (c *Client) RemoveAccessKey(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, wire.KeyPath(id), nil, nil)
}

// AddUser makes a user. Of one that there is it changes nothing.
func (c *Client) AddUser(ctx context.Context, name string) (made wire.User, err error) {
	err = c.call(ctx, http.MethodPost, wire.UsersPath, wire.UserRequest{Name: name}, &made)
	return made, err
}

// RemoveUser destroys a user's keys, and returns what is left to do after that; see UserPage.
func (c *Client) RemoveUser(ctx context.Context, name string) (left wire.Removal, err error) {
	if err = image.CheckUser(name); err == nil {
		err = c.call(ctx, http.MethodDelete, wire.AccountPath(name), nil, &left)
	}
	return left, err
}

// Users yields the users, and sets removals to those that are not complete. It ends after an error.
func (c *Client) Users(ctx context.Context, removals *[]wire.Removal) iter.Seq2[wire.User, error] {
	return pages("users", true, func(after string) ([]wire.User, string, error) {
		page, err := c.UserPage(ctx, after)
		*removals = page.Removals
		return page.Users, page.Next, err
	})
}

// UserPage returns the users whose names come after `after`, as many as a node lists at once, and all
// removals that are not complete.
func (c *Client) UserPage(ctx context.Context, after string) (page wire.UserList, err error) {
	err = c.call(ctx, http.MethodGet, paged(wire.UsersPath, after, ""), nil, &page)
	return page, err
}

// AccessKeys yields the access keys, those of one user where user is not empty. It ends after an error.
func (c *Client) AccessKeys(ctx context.Context, user string) iter.Seq2[wire.AccessKey, error] {
	return pages("keys", true, func(after string) ([]wire.AccessKey, string, error) {
		var page wire.KeyList
		err := c.call(ctx, http.MethodGet, paged(wire.KeysPath, after, user), nil, &page)
		return page.Keys, page.Next, err
	})
}

// pages yields what the pages of a list have: get returns what comes after a place, and the next page's
// place, empty on the last page. In an ordered list each place is behind the one before; in any list it is
// another one. It ends after an error.
func pages[T any](
	what string, ordered bool, get func(after string) (page []T, next string, err error),
) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for after := ""; ; {
			page, next, err := get(after)
			if err == nil && next != "" && (next == after || ordered && next < after) {
				err = image.Errorf(image.KindInternal, "the list of %s goes on at %.64q again", what, next)
			}
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, x := range page {
				if !yield(x, nil) {
					return
				}
			}
			if after = next; after == "" {
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
