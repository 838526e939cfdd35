package ingest

import (
	"context"
	"slices"

	"imgcluster/cluster/commit"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
)

// followSenders sends a relayed upload to the nodes that store it, and to no other. The caller holds mu.
func (u *upload) followSenders(d commit.Decision) {
	for _, n := range d.Storing {
		if n != u.s.Node && u.senders[n] == nil {
			u.startSending(n, d)
		}
	}
	// Stop sending to dropped nodes: where not all bytes fit in memory, one that stalls blocks the others.
	// Those that replace it have their cursors by now; they need the first bytes, which its cursor holds.
	for n, stop := range u.senders {
		if !slices.Contains(d.Storing, n) {
			stop(errStale)
			delete(u.senders, n) // it may be chosen again
		}
	}
}

// startSending streams the bytes of a relayed upload on to a storing node. The caller holds mu.
func (u *upload) startSending(to image.NodeID, d commit.Decision) {
	ctx, stop := context.WithCancelCause(u.ctx)
	u.senders[to] = stop
	cur, err := u.spool.cursor(ctx)
	req := u.req
	req.Broadcast = slices.Clone(d.Storing)
	req.Relayed = true
	u.sending.Go(func() {
		if err == nil {
			failpoint.Here("upload/before-send")
			err = u.s.Peers.Send(ctx, to, req, cur)
			failpoint.Here("upload/sent")
			cur.close()
		}
		if err != nil && ctx.Err() == nil && u.outcome() == nil {
			p := image.AsProblem(err)
			u.step(func(m commit.Moment) []commit.Action {
				if ctx.Err() == nil {
					delete(u.senders, to)
				}
				return u.part.CannotSend(m, to, &p)
			})
		}
	})
}
