package consensus

import (
	"context"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// tryRoundsMax bounds how many rounds the balancer waits before it asks for a transfer again. A
// shard takes no proposals while a transfer hangs, up to one election timeout.
const tryRoundsMax = 31

// Candidates are the nodes that may lead a shard; the first one should.
type Candidates struct {
	Shard uint64
	Nodes []image.NodeID
}

// plan returns who should lead each shard: its first node, or when that one is not live, the live one with
// the fewest shards. Nodes that see the same live nodes make the same plan; a shard without a live
// node is not in it.
func plan(candidates []Candidates, live map[image.NodeID]bool) map[uint64]image.NodeID {
	leads := map[image.NodeID]int{}
	plan := map[uint64]image.NodeID{}
	for _, r := range candidates {
		if len(r.Nodes) > 0 && live[r.Nodes[0]] {
			plan[r.Shard] = r.Nodes[0]
			leads[r.Nodes[0]]++
		}
	}
	for _, r := range candidates {
		if plan[r.Shard] != 0 {
			continue
		}
		ids := slices.DeleteFunc(slices.Clone(r.Nodes), func(id image.NodeID) bool { return !live[id] })
		if len(ids) == 0 {
			continue
		}
		slices.Sort(ids)
		least := slices.MinFunc(ids, func(a, b image.NodeID) int { return leads[a] - leads[b] })
		plan[r.Shard] = least
		leads[least]++
	}
	return plan
}

// allowed lists the nodes that may lead if they are up.
func (c *Consensus) allowed() map[image.NodeID]bool {
	allowed := map[image.NodeID]bool{}
	for id := range c.addresses() {
		allowed[id] = true
	}
	live := c.opts.Live()
	maps.DeleteFunc(allowed, func(id image.NodeID, _ bool) bool { return !slices.Contains(live, id) })
	return allowed
}

// answering returns the allowed nodes that can be reached: this one, those that have sent Raft messages
// lately, and those whose Raft port answers a probe. The probe alone may fail where packets are lost.
func (c *Consensus) answering(ctx context.Context, allowed map[image.NodeID]bool) map[image.NodeID]bool {
	addresses := c.addresses()
	lately := time.Duration(c.opts.ElectionRTT) * c.opts.RTT
	var silent []string
	for id, address := range addresses {
		if id != c.opts.NodeID && !c.transport.HeardWithin(address, lately) {
			silent = append(silent, address)
		}
	}
	answers := c.transport.Probe(ctx, silent)
	live := maps.Clone(allowed)
	maps.DeleteFunc(live, func(id image.NodeID, _ bool) bool {
		address := addresses[id]
		return id != c.opts.NodeID && (address == "" || slices.Contains(silent, address) && !answers[address])
	})
	return live
}

// balancer takes over the shards that this node should lead. The one who should lead asks for it,
// because it alone knows that it reaches the leader and has caught up: a leader would have to guess,
// and a transfer to a node that is not there yet stops the shard.
type balancer struct {
	self       image.NodeID
	candidates func() []Candidates
	leader     func(shard uint64) (image.NodeID, uint64, bool)
	caughtUp   func(shard uint64) bool
	transfer   func(shard uint64, to image.NodeID)
	tries      map[uint64]try
}

// try is a transfer that is not done yet.
type try struct{ count, wait int } // wait is in rounds

// balanced reports whether all shards that have a leader have the one that is planned.
func (b *balancer) balanced(live map[image.NodeID]bool) bool {
	for shard, planned := range plan(b.candidates(), live) {
		if leader, _, ok := b.leader(shard); ok && leader != planned {
			return false
		}
	}
	return true
}

// round looks once. A transfer that does not come about is asked for again in the next round, then
// after 1, 3, 7 ... rounds.
func (b *balancer) round(live map[image.NodeID]bool) {
	candidates := b.candidates()
	plan := plan(candidates, live)
	for _, r := range candidates {
		leader, _, ok := b.leader(r.Shard)
		if !ok || leader == b.self || plan[r.Shard] != b.self {
			delete(b.tries, r.Shard)
			continue
		}
		t := b.tries[r.Shard]
		if t.wait > 0 {
			t.wait--
		} else if b.caughtUp(r.Shard) {
			b.transfer(r.Shard, b.self)
			t.wait = min(1<<t.count-1, tryRoundsMax)
			t.count = min(t.count+1, 5)
		}
		b.tries[r.Shard] = t
	}
}

func (c *Consensus) newBalancer(ctx context.Context) *balancer {
	return &balancer{
		self: c.opts.NodeID, candidates: c.opts.Candidates, leader: c.Leader, transfer: c.transfer,
		tries:    map[uint64]try{},
		caughtUp: func(shard uint64) bool { return c.caughtUp(ctx, shard) },
	}
}

// caughtUp reports whether this node answers linearizable reads of the shard: it reaches the leader
// and has applied everything.
func (c *Consensus) caughtUp(ctx context.Context, shard uint64) bool {
	ctx, cancel := context.WithTimeout(ctx, c.opts.ProposalAttempt)
	defer cancel()
	_, err := c.host.SyncRead(ctx, shard, func(catalog.Reader) error { return nil })
	return err == nil
}

// keepBalanced runs the balancer until Close. The other nodes are only probed when a shard is not led by the
// node that would lead it if all were up.
func (c *Consensus) keepBalanced(ctx context.Context) {
	b := c.newBalancer(ctx)
	ticker := time.NewTicker(c.opts.RebalanceEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if allowed := c.allowed(); !b.balanced(allowed) {
			b.round(c.answering(ctx, allowed))
		}
	}
}

func (c *Consensus) transfer(shard uint64, to image.NodeID) {
	replica, ok := c.replicaOn(shard, to)
	if !ok {
		return
	}
	c.counters.transfers.Add(1)
	err := c.host.RequestLeaderTransfer(shard, replica)
	c.log.Debug("leader transfer", zap.Uint64("shard", shard), zap.Uint32("to", uint32(to)), zap.Error(err))
}
