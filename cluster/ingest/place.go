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

// flyingMax bounds the decisions on their way, of this node and of others: with more, no announcement is
// taken on, and those of others are not counted.
const flyingMax = 4096

// flying is a decision on an upload that is on its way.
type flying struct {
	shard   uint64
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
// them are to. The loads are what the shards that these nodes hold have committed, and the decisions on the
// way that this node has taken or heard of.
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
	p.flying[req.ID] = &flying{shard, order[:storing], req.Size, time.Now()}
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

// heard counts a decision of another node as load until the log shows it.
func (p *placer) heard(shard uint64, d commit.Decision) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case len(d.Storing) == 0 || d.Problem != nil:
		p.drop(d.ID)
	case p.flying[d.ID] != nil || len(p.flying) < flyingMax:
		p.flying[d.ID] = &flying{shard, d.Storing, d.Bytes, time.Now()}
	}
}

// landed drops a decision that the log shows, or that came to nothing.
func (p *placer) landed(id image.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(id)
}

// drop counts a decision no more. The caller holds mu.
func (p *placer) drop(id image.ID) {
	if f := p.flying[id]; f != nil {
		delete(p.flying, id)
		delete(p.totals, f.shard) // they may be from before the log showed it
	}
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
	loads, err := p.loads(shard)
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

// loads adds up the work that was given to each node of a shard, in this shard and all others of the same
// nodes. By other shards they could not be compared: this node knows those that it holds, and so more of what
// one of them has to do than of what another has. The caller holds mu.
func (p *placer) loads(shard uint64) (map[image.NodeID]*catalog.NodeTotals, error) {
	sum := &catalog.Totals{Nodes: map[image.NodeID]*catalog.NodeTotals{}}
	nodes := p.ShardNodes(shard)
	like := map[uint64]bool{}
	for _, other := range p.Shards() {
		if !sameNodes(p.ShardNodes(other), nodes) {
			continue
		}
		like[other] = true
		t, known := p.totals[other]
		if acted := p.acted(other); !known || t.acted != acted { // read before the sums, which may be newer
			var err error
			if t.Totals, err = catalog.ViewTotals(p.Log.View, other); err != nil {
				return nil, err
			}
			t.acted = acted
			p.totals[other] = t
		}
		sum.Add(t.Totals)
	}
	for _, f := range p.flying {
		if like[f.shard] {
			sum.Assign(f.storing, f.bytes)
		}
	}
	return sum.Nodes, nil
}

func sameNodes(a, b []image.NodeID) bool {
	isMissing := func(n image.NodeID) bool { return !slices.Contains(b, n) }
	return len(a) == len(b) && !slices.ContainsFunc(a, isMissing)
}
