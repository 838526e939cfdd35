package ingest

import (
	"maps"
	"slices"
	"sync"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/commit"
	"imgcluster/cluster/image"
	"imgcluster/cluster/placement"
)

// placer chooses the nodes of an upload, one upload after the other.
type placer struct {
	*Options
	mu     sync.Mutex           // one choice at a time
	flying map[image.ID]*flying // decisions, of this node and of others, that the log does not show yet
	acted  func(shard uint64) uint64
	totals map[uint64]shardTotals
}

// shardTotals are a shard's sums, which stay the same until this node has acted on a later entry.
type shardTotals struct {
	*catalog.Totals
	acted uint64
}

// flying is a decision on an upload that is on its way.
type flying struct {
	storing []image.NodeID // the owner first
	bytes   int64
	since   time.Time
}

func newPlacer(o *Options, acted func(shard uint64) uint64) *placer {
	return &placer{
		Options: o, flying: map[image.ID]*flying{}, acted: acted, totals: map[uint64]shardTotals{},
	}
}

// place chooses the nodes of an upload: those of keep first, then those that are known to store it, then
// others by placement, but for those of out. It returns all that may store it in their order, and how many of
// them are to. The loads are what all shards have committed, and the decisions on the way that this node has
// taken or heard of.
func (p *placer) place(
	shard uint64, req image.Request, keep, out []image.NodeID,
) (order []image.NodeID, storing int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	earlier := p.flying[req.ID]
	delete(p.flying, req.ID) // it is no load beside itself
	room := p.Room()
	candidates, err := p.candidates(shard, req, room)
	if err != nil {
		return nil, 0, err
	}
	if earlier != nil {
		keep = kept(earlier.storing, keep, out, candidates)
	}
	if req.Announced {
		keep = kept(req.Broadcast, keep, out, candidates)
	}
	others := slices.DeleteFunc(candidates, func(c placement.Candidate) bool {
		return slices.Contains(keep, c.ID) || slices.Contains(out, c.ID)
	})
	if err := p.enough(shard, req, len(keep)+len(others), room); err != nil {
		return nil, 0, err
	}
	order = slices.Clone(keep)
	if len(others) > 0 {
		more, err := placement.Place(req.User, req.Name, req.Size, others, max(1, p.Replicas-len(keep)))
		if err != nil {
			return nil, 0, err
		}
		order = append(order, more...)
	}
	storing = min(p.Replicas, len(order))
	p.fly(req.ID, req.Size, order[:storing])
	return order, storing, nil
}

// kept returns the nodes of keep, and those of chosen that need not be out: of an earlier decision, which may
// be another leader's, since the nodes that store have released the first bytes, and could not begin again;
// or of the answer to an announcement, since the client sends to these.
func kept(chosen, keep, out []image.NodeID, candidates []placement.Candidate) []image.NodeID {
	keep = slices.Clone(keep)
	for _, n := range chosen {
		isIt := func(c placement.Candidate) bool { return c.ID == n }
		if slices.ContainsFunc(candidates, isIt) && !slices.Contains(keep, n) && !slices.Contains(out, n) {
			keep = append(keep, n)
		}
	}
	return keep
}

// fly counts a decision as load until the log shows it. The caller holds mu.
func (p *placer) fly(id image.ID, size int64, storing []image.NodeID) {
	p.flying[id] = &flying{storing, size, time.Now()}
}

// heard counts a decision of another node.
func (p *placer) heard(req image.Request, d commit.Decision) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(d.Storing) > 0 {
		p.fly(d.ID, req.Size, d.Storing)
	}
}

// landed drops a decision that the log shows, or that came to nothing.
func (p *placer) landed(id image.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.flying, id)
}

// expire drops decisions of which nothing was heard for too long.
func (p *placer) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	late := func(_ image.ID, f *flying) bool { return time.Since(f.since) > 2*p.UploadTimeout }
	maps.DeleteFunc(p.flying, late)
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
		sentTo := len(req.Broadcast) == 0 || req.Announced || slices.Contains(req.Broadcast, n)
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
	case len(req.Broadcast) > 0 && !req.Announced && named < need:
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

// loads adds up the work that was given to each node, in all and in the shards that other nodes
// lead, whose newest decisions may not be here yet. The caller holds mu.
func (p *placer) loads() (all, others map[image.NodeID]*catalog.NodeTotals, err error) {
	sum := &catalog.Totals{Nodes: map[image.NodeID]*catalog.NodeTotals{}}
	theirs := &catalog.Totals{Nodes: map[image.NodeID]*catalog.NodeTotals{}}
	for _, shard := range p.Shards() {
		t, known := p.totals[shard]
		if acted := p.acted(shard); !known || t.acted != acted { // read before the sums, which may be newer
			if t.Totals, err = catalog.ViewTotals(p.Log.View, shard); err != nil {
				return nil, nil, err
			}
			t.acted = acted
			p.totals[shard] = t
		}
		sum.Add(t.Totals)
		if p.Log.Leader(shard) != p.Node {
			theirs.Add(t.Totals)
		}
	}
	for _, f := range p.flying {
		sum.Assign(f.storing, f.bytes)
	}
	return sum.Nodes, theirs.Nodes, nil
}
