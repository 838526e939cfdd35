package ingest

import (
	"context"
	"slices"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
)

func (t *task) linger() {
	timer := time.AfterFunc(lingerMax, func() { t.u.cancel(errSpoolClosed) })
	defer timer.Stop()
	t.senders.Wait()
}

// followSenders sends a relayed upload to the nodes that store it, and to no other.
func (t *task) followSenders(state *catalog.Upload) {
	for _, slot := range state.Storing {
		if slot.Node != t.s.Node && !slot.Stored() && t.sending[slot.Node] == nil {
			t.startSending(slot.Node)
		}
	}
	// Stop sending to dropped nodes: where not all bytes fit in memory, one that stalls blocks the others.
	// Those that replace it have their cursors by now; they need the first bytes, which its cursor holds.
	for node, stop := range t.sending {
		if state.Slot(node) == nil {
			stop(errStale)
		}
	}
}

// startSending streams the bytes of a relayed upload on to a storing node.
func (t *task) startSending(to image.NodeID) {
	s, u := t.s, t.u
	ctx, stop := context.WithCancelCause(u.ctx)
	t.sending[to] = stop
	cur, err := u.spool.cursor(ctx)
	req := u.req
	req.Broadcast = slices.Clone(u.latest().Holders)
	req.Relayed = true
	t.senders.Go(func() {
		if err == nil {
			failpoint.Here("upload/before-send")
			err = s.Peers.Send(ctx, to, req, cur)
			failpoint.Here("upload/sent")
			cur.close()
		}
		if err != nil && ctx.Err() == nil && !u.latest().Finished() {
			t.giveUp(to, err)
		}
	})
}
