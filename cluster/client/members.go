package client

import (
	"context"
	"fmt"
	"net/http"

	"imgcluster/cluster/image"
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

// NotMember returns what is wrong with a node of the configuration that is not a member, and the next step.
func NotMember(id image.NodeID) string {
	return fmt.Sprintf("node %d is not a member of the cluster: it was removed, or not added yet; "+
		"take it out of the configuration, or add it with imgcluster member add", id)
}
