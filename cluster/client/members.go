package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// Members lists the cluster's members.
func (c *Client) Members(ctx context.Context) ([]wire.Member, error) {
	r, err := c.ask(ctx, http.MethodGet, wire.MembersPath, nil, nil)
	if err != nil {
		return nil, err
	}
	return members(r)
}

// ChangeMember changes one member and returns the list that follows. Repeating a change does no harm.
func (c *Client) ChangeMember(ctx context.Context, change wire.MemberChange) ([]wire.Member, error) {
	body, err := json.Marshal(change)
	if err != nil {
		return nil, err
	}
	r, err := c.ask(ctx, http.MethodPost, wire.MembersPath,
		http.Header{"Content-Type": {wire.DocumentType}}, body)
	if err != nil {
		return nil, err
	}
	return members(r)
}

func members(r *reply) ([]wire.Member, error) {
	var answer wire.MemberList
	err := r.decode(&answer)
	return answer.Members, err
}

// NotMember returns what is wrong with a node of the configuration that is not a member, and the next step.
func NotMember(id image.NodeID) string {
	return fmt.Sprintf("node %d is not a member of the cluster: it was removed, or not added yet; "+
		"take it out of the configuration, or add it with imgcluster member add", id)
}
