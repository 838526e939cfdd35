package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"imgcluster/cluster/bootstrap"
	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/membership"
	"imgcluster/cluster/peer"
	"imgcluster/cluster/wire"
)

// groups reads the members of Raft groups, also of those that this node is not in.
type groups struct {
	self    image.NodeID
	log     *shardLogs
	peers   *peer.Set
	timeout time.Duration // of one node's answer
}

// groupQuery asks a node for the replicas in a shard's Raft group.
type groupQuery struct {
	Shard uint64 `json:"shard"`
}

// groupAnswer are the replicas in a shard's Raft group, by their ID in Raft.
type groupAnswer struct {
	Replicas []uint64 `json:"replicas"`
}

// Group implements api.Peers: it answers another node's groupQuery, with all changes committed before.
func (g *groups) Group(ctx context.Context, _ image.NodeID, query []byte) ([]byte, error) {
	var q groupQuery
	if err := json.Unmarshal(query, &q); err != nil {
		return nil, image.Errorf(image.KindInvalid, "malformed query of a group: %w", err).
			WithHint("run the same imgcluster version on every node")
	}
	c, err := g.log.started()
	if err != nil {
		return nil, err
	}
	replicas, err := c.Group(ctx, q.Shard)
	if err != nil {
		return nil, err
	}
	a := groupAnswer{}
	for _, r := range replicas {
		a.Replicas = append(a.Replicas, r.ID())
	}
	return json.Marshal(a)
}

// of returns the replicas in a shard's Raft group, with all changes committed before, as this node or another
// one that has the shard reads them.
func (g *groups) of(ctx context.Context, shard uint64, l *catalog.Layout) ([]catalog.Replica, error) {
	if c := g.log.c.Load(); c != nil {
		if _, here := c.Replica(shard); here {
			return c.Group(ctx, shard)
		}
	}
	return g.ofOthers(ctx, shard, l)
}

// ofOthers is of without this node, which may not be in the group any more and then gets no answer.
func (g *groups) ofOthers(ctx context.Context, shard uint64, l *catalog.Layout) ([]catalog.Replica, error) {
	query, err := json.Marshal(groupQuery{shard})
	if err != nil {
		return nil, err
	}
	up := g.peers.Up()
	var last error
	for _, id := range catalog.NodesOf(l.All()) {
		if id == g.self || !slices.Contains(up, id) {
			continue
		}
		var replicas []catalog.Replica
		if replicas, last = g.ask(ctx, id, query); last == nil {
			return replicas, nil
		}
	}
	return nil, image.Errorf(image.KindNoQuorum, "no node that holds shard %d has answered: %w", shard, last).
		WithHint("start the nodes that are down").WithRetry(time.Second)
}

func (g *groups) ask(ctx context.Context, id image.NodeID, query []byte) ([]catalog.Replica, error) {
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	b, err := g.peers.Post(ctx, id, wire.GroupPath, query)
	if err != nil {
		return nil, err
	}
	var a groupAnswer
	if err := json.Unmarshal(b, &a); err != nil {
		return nil, fmt.Errorf("answer of node %d: %w", id, err)
	}
	replicas := make([]catalog.Replica, len(a.Replicas))
	for i, r := range a.Replicas {
		replicas[i] = catalog.ReplicaOf(r)
	}
	return replicas, nil
}

// left reports whether a replica of this node is no longer in its shard's Raft group, as the group says. The
// layout alone does not count: it is what should be.
func (g *groups) left(ctx context.Context, shard uint64, l *catalog.Layout, r catalog.Replica) (bool, error) {
	group, err := g.ofOthers(ctx, shard, l)
	return err == nil && !slices.Contains(group, r), err
}

// admission admits nodes that start with an empty data directory, or have to be rebuilt.
type admission struct {
	*groups
	view    *view
	timeout time.Duration // for all questions before the proposal
}

// Join implements api.Peers: a node asks to be admitted.
func (a *admission) Join(ctx context.Context, from image.NodeID, theirs []byte) ([]byte, error) {
	r, err := bootstrap.ParseJoin(theirs)
	if err != nil {
		return nil, err
	}
	if r.Node != from {
		return nil, image.Errorf(image.KindForbidden, "node %d asks to be admitted as node %d", from, r.Node).
			WithHint("each node speaks for itself only")
	}
	if r.Restored > 0 {
		return nil, image.Errorf(image.KindForbidden, "node %d was restored from a backup, and this one runs",
			from).WithHint("a restored node is the first to start; the others follow with empty data directories")
	}
	m, err := a.check(ctx, &r.Join)
	if err != nil {
		return nil, err
	}
	if !r.Ask {
		result, err := a.log.Do(ctx, systemShard, catalog.Command{Join: &r.Join})
		if err != nil {
			return nil, err
		}
		m = result.Members
	}
	return json.Marshal(m)
}

// check returns the membership when a node may join. Where it takes the place of another data directory,
// that one must not be in use, and each of its shards must have a quorum of up to date replicas without it:
// the new one has nothing, and a shard without a quorum cannot even take it in.
func (a *admission) check(ctx context.Context, j *catalog.Join) (*catalog.Membership, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	serves := func(shard uint64) func(image.NodeID) bool {
		return func(id image.NodeID) bool { return a.view.servedBy(id, shard) }
	}
	m, err := a.view.newest(ctx)
	if err != nil {
		l := a.view.membership().Shards[systemShard]
		return nil, cmp.Or(membership.CheckQuorum(systemShard, l.Nodes, l, j.Node, serves(systemShard)), err)
	}
	replaces, err := m.CheckJoin(systemShard, j)
	if err != nil || !replaces {
		return m, err
	}
	a.view.update(m)
	if a.view.servesAny(m, j.Node) {
		return nil, image.Errorf(image.KindNoQuorum,
			"node %d serves, with the data directory that the cluster knows", j.Node).
			WithHint("stop it first: the process, or the other machine with this ID").WithRetry(time.Second)
	}
	for shard, l := range m.Shards {
		if _, holds := l.Of(j.Node); !holds {
			continue
		}
		group, err := a.of(ctx, shard, l)
		if err != nil { // no quorum answers: the layout may say why
			group = l.Nodes
		}
		if err := cmp.Or(membership.CheckQuorum(shard, group, l, j.Node, serves(shard)), err); err != nil {
			return nil, err
		}
	}
	return m, nil
}
