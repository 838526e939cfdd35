package client

import (
	"context"
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		index   int
		status  wire.ClusterStatus
		failure *failure
	}
	nodes, first := c.o.Nodes, int(c.last.Load())
	answers := make(chan answer, len(nodes))
	next := time.NewTicker(hedgeDelay)
	defer next.Stop()
	var failures []failure
	for asked := 0; len(failures) < len(nodes); {
		if asked < len(nodes) {
			i := (first + asked) % len(nodes)
			asked++
			go func() {
				a := answer{index: i}
				a.failure = c.document(ctx, nodes[i], wire.ClusterPath, &a.status)
				answers <- a
			}()
		}
		select {
		case a := <-answers:
			if a.failure == nil {
				c.last.Store(uint32(a.index))
				c.updateMembers(a.status)
				return a.status, nil
			}
			failures = append(failures, *a.failure)
		case <-next.C:
		}
	}
	if ctx.Err() != nil {
		return wire.ClusterStatus{}, errors.Join(c.nobodyAnswers(failures), context.Cause(ctx))
	}
	err, _ := c.summarize(failures)
	return wire.ClusterStatus{}, err
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
// that Cluster returned.
func (c *Client) NodeCluster(ctx context.Context, id image.NodeID) (status wire.ClusterStatus, err error) {
	err = c.nodeDocument(ctx, id, wire.ClusterPath, &status)
	return status, err
}

// NodeInfo returns what the given node reports of itself alone.
func (c *Client) NodeInfo(ctx context.Context, id image.NodeID) (info wire.NodeInfo, err error) {
	err = c.nodeDocument(ctx, id, wire.NodePath, &info)
	return info, err
}

// nodeDocument asks one node, without trying again.
func (c *Client) nodeDocument(ctx context.Context, id image.NodeID, path string, v any) error {
	for _, n := range c.knownNodes() {
		if n.ID != id {
			continue
		}
		if f := c.document(ctx, n, path, v); f != nil {
			err, _ := c.summarize([]failure{*f})
			return err
		}
		return nil
	}
	return image.Errorf(image.KindInvalid, "unknown node ID %d", id).
		WithHint("the client knows the nodes " + c.allNodes.broadcast)
}

func (c *Client) document(ctx context.Context, n Node, path string, v any) *failure {
	r, f := c.askNode(ctx, n, http.MethodGet, path, nil, nil)
	if f != nil {
		return f
	}
	if err := r.decode(v); err != nil {
		return &failure{node: n, status: http.StatusBadGateway, err: err}
	}
	return nil
}
