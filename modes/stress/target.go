package stress

import (
	"cmp"
	"context"
	"crypto/sha256"
	"io"
	"slices"
	"sync/atomic"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/placement"
	"imgcluster/cluster/wire"
	"imgcluster/modes/runlog"
	"imgcluster/modes/stress/load"
)

// Target is the cluster as the load driver sees it.
type Target struct {
	c      *client.Client
	auto   bool                               // the client chooses the delivery
	status atomic.Pointer[wire.ClusterStatus] // the newest
}

// NewTarget returns the cluster that a client speaks to, which has this status. auto: its delivery is
// client.Auto.
func NewTarget(c *client.Client, status wire.ClusterStatus, auto bool) *Target {
	t := &Target{c: c, auto: auto}
	t.setStatus(status)
	return t
}

// setStatus sorts the shards by ID, in which order the hash counts them.
func (t *Target) setStatus(s wire.ClusterStatus) {
	byID := func(a, b wire.ShardStatus) int { return cmp.Compare(a.ID, b.ID) }
	s.Shards = slices.SortedFunc(slices.Values(s.Shards), byID)
	t.status.Store(&s)
}

// Put implements load.Target.
func (t *Target) Put(ctx context.Context, up load.Upload) (load.Outcome, error) {
	first := t.firstChoice(up.User, up.Name)
	id := image.NewID()
	r, err := t.c.Put(ctx, client.Upload{ID: id, User: up.User, Name: up.Name, Size: up.Size, Body: up.Body})
	o := load.Outcome{
		ID:        id.String(),
		Owner:     int(r.Receipt.Owner),
		Attempts:  r.Attempts,
		Done:      r.Done,
		SentBytes: r.SentBytes, AgainBytes: r.AgainBytes,
	}
	if t.auto {
		o.Delivery = string(r.Delivery)
	}
	o.Chosen = func() string {
		if c := r.Chosen(); c != nil {
			return c.String()
		}
		return ""
	}
	for _, n := range r.Receipt.Replicas {
		o.Replicas = append(o.Replicas, int(n))
	}
	if first != 0 && err == nil {
		isFirst := r.Receipt.Owner == first
		o.FirstChoice = &isFirst
		o.FirstNode = int(first)
	}
	return o, err
}

// firstChoice returns the node that ranks first for a name. It returns 0, not known, while a node of the
// shard takes no images.
func (t *Target) firstChoice(user, name string) image.NodeID {
	s := t.status.Load()
	if len(s.Shards) < 2 {
		return 0
	}
	nodes := s.Shards[1+placement.Shard(user, name, len(s.Shards)-1)].Nodes // the first is the system shard
	for _, id := range nodes {
		i := slices.IndexFunc(s.Nodes, func(n wire.NodeStatus) bool { return n.ID == id })
		if i < 0 || s.Nodes[i].Condition() != string(wire.NodeUp) || !s.Nodes[i].Ready {
			return 0
		}
	}
	if len(nodes) == 0 {
		return 0
	}
	return placement.Rank(user, name, nodes)[0]
}

// readBufferBytes is the memory of one read: images are not held.
const readBufferBytes = 256 << 10

// Get implements load.Target.
func (t *Target) Get(ctx context.Context, user, name string) ([sha256.Size]byte, int64, error) {
	return readSum(ctx, t.c, user, name)
}

// readSum reads an image and hashes it.
func readSum(
	ctx context.Context, c *client.Client, user, name string,
) (sum [sha256.Size]byte, n int64, err error) {
	obj, err := c.Get(ctx, user, name, false)
	if err != nil {
		return sum, 0, err
	}
	defer obj.Body.Close()
	h := sha256.New()
	n, err = io.CopyBuffer(h, obj.Body, make([]byte, readBufferBytes))
	return [sha256.Size]byte(h.Sum(nil)), n, err
}

// Status implements load.Target.
func (t *Target) Status(ctx context.Context) ([]runlog.NodeSample, error) {
	s, err := t.c.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	t.setStatus(s)
	samples := make([]runlog.NodeSample, len(s.Nodes))
	for i, n := range s.Nodes {
		samples[i] = runlog.NodeSample{ID: int(n.ID), Up: n.State != wire.NodeDown, Node: n.Node}
	}
	return samples, nil
}
