package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// Cluster returns the cluster's state as one node sees it: the one that answered last time, or the
// first of the others to answer when it does not do so quickly. It does not try again.
func (c *Client) Cluster(ctx context.Context) (wire.ClusterStatus, error) {
	status, at, failures := hedged(ctx, c.o.Nodes, int(c.last.Load()),
		func(ctx context.Context, n Node) (status wire.ClusterStatus, f *failure) {
			return status, c.document(ctx, n, wire.ClusterPath, &status)
		})
	switch {
	case failures == nil:
		c.last.Store(uint32(at))
		c.updateMembers(status)
		return status, nil
	case ctx.Err() != nil:
		return wire.ClusterStatus{}, errors.Join(c.nobodyAnswers(failures), context.Cause(ctx))
	}
	err, _ := c.summarize(failures)
	return wire.ClusterStatus{}, err
}

// hedged asks nodes in turn, the one at first before the others, and returns the first answer and which
// node's it is. The next is asked when those before have failed, or have not answered for hedgeDelay. Without
// failures there is an answer; a refusal ends it, as all would answer the same.
func hedged[T any](
	ctx context.Context, nodes []Node, first int, ask func(context.Context, Node) (T, *failure),
) (answer T, at int, failures []failure) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		at      int
		answer  T
		failure *failure
	}
	results := make(chan result, len(nodes))
	next := time.NewTicker(hedgeDelay)
	defer next.Stop()
	for asked := 0; len(failures) < len(nodes); {
		if asked < len(nodes) {
			at := (first + asked) % len(nodes)
			asked++
			go func() {
				r := result{at: at}
				r.answer, r.failure = ask(ctx, nodes[at])
				results <- r
			}()
		}
		select {
		case r := <-results:
			if r.failure == nil {
				return r.answer, r.at, nil
			}
			if failures = append(failures, *r.failure); r.failure.refused() {
				return answer, 0, failures
			}
		case <-next.C:
		}
	}
	return answer, 0, failures
}

// updateMembers keeps the addresses of the members, which may be more than the client was given.
func (c *Client) updateMembers(s wire.ClusterStatus) {
	nodes := make([]Node, len(s.Nodes))
	for i, n := range s.Nodes {
		nodes[i] = Node{ID: n.ID, Addr: n.API}
	}
	c.members.Store(&nodes)
}

// knownNodes returns the nodes that the client was given, then the members that Cluster returned last.
func (c *Client) knownNodes() []Node {
	if m := c.members.Load(); m != nil {
		return slices.Concat(c.o.Nodes, *m)
	}
	return c.o.Nodes
}

// NodeCluster returns the cluster's state as the given node sees it: one that the client was given, or
// that Cluster returned. It does not try again.
func (c *Client) NodeCluster(ctx context.Context, id image.NodeID) (status wire.ClusterStatus, err error) {
	err = c.nodeDocument(ctx, id, wire.ClusterPath, &status)
	return status, err
}

// NodeInfo returns what the given node reports of itself alone. It does not try again.
func (c *Client) NodeInfo(ctx context.Context, id image.NodeID) (info wire.NodeInfo, err error) {
	err = c.nodeDocument(ctx, id, wire.NodePath, &info)
	return info, err
}

// nodeDocument asks one node, without trying again.
func (c *Client) nodeDocument(ctx context.Context, id image.NodeID, path string, v any) error {
	n, err := c.node(id)
	if err != nil {
		return err
	}
	if f := c.document(ctx, n, path, v); f != nil {
		err, _ = c.summarize([]failure{*f})
	}
	return err
}

// node returns a node that the client was given, or that Cluster returned.
func (c *Client) node(id image.NodeID) (Node, error) {
	for _, n := range c.knownNodes() {
		if n.ID == id {
			return n, nil
		}
	}
	return Node{}, image.Errorf(image.KindInvalid, "unknown node ID %d", id).
		WithHint("the client knows the nodes " + c.allNodes.broadcast)
}

func (c *Client) document(ctx context.Context, n Node, path string, v any) *failure {
	return c.askDocument(ctx, n, http.MethodGet, path, nil, nil, v)
}

// askDocument asks one node, without trying again, and decodes its answer into v.
func (c *Client) askDocument(
	ctx context.Context, n Node, method, path string, header http.Header, body []byte, v any,
) *failure {
	r, f := c.askNode(ctx, n, method, path, header, body)
	if f != nil {
		return f
	}
	if err := r.decode(v); err != nil {
		return &failure{node: n, status: http.StatusBadGateway, err: err}
	}
	return nil
}

// LogLevel returns what a node logs. It does not try again.
func (c *Client) LogLevel(ctx context.Context, n Node) (level wire.LogLevel, err error) {
	if f := c.document(ctx, n, wire.LogPath, &level); f != nil {
		err, _ = c.summarize([]failure{*f})
	}
	return level, err
}

// SetLogLevel changes what a node logs until it is started again: to one of wire.LogLevels. It returns what
// the node logs then. It does not try again.
func (c *Client) SetLogLevel(ctx context.Context, n Node, to string) (level wire.LogLevel, err error) {
	body, err := json.Marshal(wire.LogLevel{Level: to})
	if err != nil {
		return level, err
	}
	header := http.Header{"Content-Type": {wire.DocumentType}}
	if f := c.askDocument(ctx, n, http.MethodPut, wire.LogPath, header, body, &level); f != nil {
		err, _ = c.summarize([]failure{*f})
	}
	return level, err
}
