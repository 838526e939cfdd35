package client

import (
	"context"
	"net/http"

	"imgcluster/cluster/wire"
)

// Members lists the cluster's members.
func (c *Client) Members(ctx context.Context) ([]wire.Member, error) {
	var list wire.MemberList
	err := c.call(ctx, http.MethodGet, wire.MembersPath, nil, &list)
	return list.Members, err
}

// ChangeMember changes one member and returns the list that follows. Repeating a change does no harm.
func (c *Client) ChangeMember(ctx context.Context, change wire.MemberChange) ([]wire.Member, error) {
	var list wire.MemberList
	err := c.call(ctx, http.MethodPost, wire.MembersPath, change, &list)
	return list.Members, err
}
