package ingest

import (
	"slices"
	"sync"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/placement"
)

// placer decides which nodes store an upload, one upload after the other.
type placer struct {
	*Options
	mu      sync.Mutex                   // one decision at a time
	decided map[image.ID]*catalog.Upload // decisions that the log does not show yet
}

func newPlacer(o *Options) *placer {
	return &placer{Options: o, decided: map[image.ID]*catalog.Upload{}}
}

// delay is how long this node waits for another one's assignment: not at all when it is the one to
// decide.
func (p *placer) delay(shard uint64, broadcast []image.NodeID) time.Duration {
	if len(broadcast) == 0 {
		return 0
	}
	decider := p.Log.Leader(shard)
	if decider != 0 && !slices.Contains(broadcast, decider) {
		decider = slices.Min(broadcast)
	}
	if decider == p.Node {
		return 0
	}
	return p.AssignTimeout
}

// decide chooses the nodes of an upload by placement, from what all shards have assigned and from
// the decisions of this node that the log does not show yet. It reserves the decision: release it.
func (p *placer) decide(shard uint64, req image.Request) (*catalog.Assign, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	room := p.Room()
	candidates, err := p.candidates(shard, req, room)
	if err != nil {
		return nil, err
	}
	if err := p.enough(shard, req, len(candidates), room); err != nil {
		return nil, err
	}
	order, err := placement.Place(req.User, req.Name, req.Size, candidates, p.Replicas)
	if err != nil {
		return nil, err
	}
	// Of a relayed upload this node has the bytes, and sends them on to whoever is to store them.
	holders := order
	if len(req.Broadcast) == 0 && !slices.Contains(holders, p.Node) {
		holders = append(holders, p.Node)
	}
	a := &catalog.Assign{
		ID: req.ID, User: req.User, Name: req.Name, Bytes: req.Size, Type: req.Type, If: req.If,
		Holders: holders, Replicas: p.Replicas, Created: time.Now().UTC().Truncate(time.Millisecond),
	}
	p.reserve(a)
	return a, nil
}

// candidates returns the nodes that may store an upload, with their loads. The caller holds mu.
func (p *placer) candidates(
	shard uint64, req image.Request, room []image.NodeID,
) (candidates []placement.Candidate, err error) {
	loads, others, err := p.loads()
	if err != nil {
		return nil, err
	}
	current := p.UpToDate(shard)
	for _, n := range p.ShardNodes(shard) {
		sentTo := len(req.Broadcast) == 0 || slices.Contains(req.Broadcast, n)
		if !sentTo || !slices.Contains(current, n) || !slices.Contains(room, n) {
			continue
		}
		c := placement.Candidate{ID: n}
		if l := loads[n]; l != nil {
			c.Owned = placement.Load(l.Assigned)
			c.Stored = placement.Load(l.Storing)
		}
		if l := others[n]; l != nil {
			c.Others = placement.Load(l.Assigned)
		}
		candidates = append(candidates, c)
	}
	return candidates, nil
}

// enough refuses an upload that would get fewer copies than there are live nodes for. A full disk does not
// lower that number: unlike a node that is down, it seldom recovers by itself.
func (p *placer) enough(shard uint64, req image.Request, candidates int, room []image.NodeID) error {
	liveNodes := p.Live()
	live := p.membersIn(shard, liveNodes)
	need := p.neededOf(live)
	if fit := p.membersIn(shard, liveNodes, room); live >= need && fit < need {
		return image.Errorf(image.KindDiskFull,
			"%d of the %d nodes that are up have room for more images, %d are needed", fit, live, need).
			WithHint("remove images, or free space on the data disks of the nodes that " +
				"imgcluster status calls full")
	}
	if candidates < p.MinReplicas {
		return image.Errorf(image.KindNoQuorum,
			"%d of the %d nodes needed are up", candidates, p.MinReplicas).
			WithHint("start the other nodes").
			WithRetry(time.Second)
	}
	named := p.membersIn(shard, req.Broadcast)
	switch {
	case candidates >= need:
		return nil
	case len(req.Broadcast) > 0 && named < need:
		return image.Errorf(image.KindMisplaced,
			"Imgcluster-Broadcast names %d nodes of the shard, %d are needed", named, need).
			WithHint("broadcast to all nodes that GET /v1/cluster lists for the shard, " +
				"or leave the header out")
	default:
		return image.Errorf(image.KindNoQuorum,
			"of the nodes that the upload is sent to, %d are up, have the newest state of the shard, "+
				"and have room; %d are needed", candidates, need).
			WithHint("wait a moment; broadcast to all nodes that GET /v1/cluster lists for the shard").
			WithRetry(time.Second)
	}
}

// needed is how many copies an upload must have now: replicas, or what the live nodes allow.
func (p *placer) needed(shard uint64) int { return p.neededOf(p.membersIn(shard, p.Live())) }

func (p *placer) neededOf(live int) int { return max(p.MinReplicas, min(p.Replicas, live)) }

// membersIn counts the nodes of a shard that are in all lists.
func (p *placer) membersIn(shard uint64, lists ...[]image.NodeID) (n int) {
	for _, m := range p.ShardNodes(shard) {
		missing := func(list []image.NodeID) bool { return !slices.Contains(list, m) }
		if !slices.ContainsFunc(lists, missing) {
			n++
		}
	}
	return n
}

// reserve counts a decision as load until release. The caller holds mu.
func (p *placer) reserve(a *catalog.Assign) {
	d := &catalog.Upload{ID: a.ID, Bytes: a.Bytes, Owner: a.Holders[0]}
	for _, n := range a.Holders[:min(a.Replicas, len(a.Holders))] {
		d.Storing = append(d.Storing, catalog.Slot{Node: n})
	}
	p.decided[a.ID] = d
}

// release drops a decision that the log shows, or that came to nothing.
func (p *placer) release(id image.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.decided, id)
}

// loads adds up the work that was given to each node, in all and in the shards that other nodes
// lead, whose newest decisions may not be here yet. The caller holds mu.
func (p *placer) loads() (all, others map[image.NodeID]*catalog.NodeTotals, err error) {
	sum := &catalog.Totals{Nodes: map[image.NodeID]*catalog.NodeTotals{}}
	theirs := &catalog.Totals{Nodes: map[image.NodeID]*catalog.NodeTotals{}}
	for _, shard := range p.Shards() {
		t, err := catalog.ViewTotals(p.Log.View, shard)
		if err != nil {
			return nil, nil, err
		}
		sum.Add(t)
		if p.Log.Leader(shard) != p.Node {
			theirs.Add(t)
		}
	}
	for _, d := range p.decided {
		sum.Reserve(d, +1)
	}
	return sum.Nodes, theirs.Nodes, nil
}
