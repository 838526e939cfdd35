package consensus

import (
	"context"
	"time"

	"imgcluster/cluster/image"
)

// handoverTimeout bounds how long Close waits for others to take the shards that this node leads.
const handoverTimeout = 2 * time.Second

// handoverTries bounds how often a closing node gives one shard away that comes back.
const handoverTries = 3

// handover gives the shards that this node leads away before it closes.
type handover struct {
	self       image.NodeID
	candidates []Candidates
	leader     func(shard uint64) (image.NodeID, uint64, bool)
	transfer   func(shard uint64, to image.NodeID)
	given      map[uint64]int // how often a shard was given away, up to handoverTries
	wait       map[uint64]int // rounds until a transfer under way is asked for again
}

// round asks for transfers to the nodes in live and reports whether some are not done: the shard is
// led here still, or its new leader is not elected yet, for which this node has a vote. A shard may come
// back, from a balancer that sees this node alive or from a node that closes too. It is given away
// again, but not for ever.
func (h *handover) round(live map[image.NodeID]bool, patience int) (more bool) {
	for shard, to := range plan(h.candidates, live) {
		leader, _, known := h.leader(shard)
		wait, asked := h.wait[shard]
		switch {
		case known && leader != h.self:
			if asked {
				h.given[shard]++
				delete(h.wait, shard)
			}
			continue
		case wait > 0:
			h.wait[shard]--
		case !known, h.given[shard] == handoverTries:
			continue
		default:
			h.transfer(shard, to)
			h.wait[shard] = patience
		}
		more = true
	}
	return more
}

// handOver moves all shards that this node leads to others that answer, and waits until it is done
// or not worth waiting for. It takes its time even when none is left: an election takes more.
func (c *Consensus) handOver() {
	ctx, cancel := context.WithTimeout(c.ctx, handoverTimeout)
	defer cancel()
	ticker := time.NewTicker(c.opts.pause())
	defer ticker.Stop()
	others := func() map[image.NodeID]bool {
		live := c.answering(ctx, c.allowed())
		delete(live, c.opts.NodeID)
		return live
	}
	h := handover{
		self: c.opts.NodeID, candidates: c.opts.Candidates(), leader: c.Leader, transfer: c.transfer,
		given: map[uint64]int{}, wait: map[uint64]int{},
	}
	for h.round(others(), 2*int(c.opts.ElectionRTT)) {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
