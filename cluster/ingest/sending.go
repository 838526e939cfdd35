package ingest

import (
	"context"
	"io"
	"slices"

	"go.uber.org/zap"

	"imgcluster/cluster/commit"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
)

// followSenders sends a relayed upload to the nodes that store it. The caller holds mu.
func (u *upload) followSenders(d commit.Decision) {
	for _, n := range d.Storing {
		if n != u.s.Node && u.senders[n] == nil {
			u.startSending(n, d.Storing, u.fromSpool)
		}
	}
}

// dropSenders stops sending to nodes that do not store the upload any more: where not all bytes fit in
// memory, one that stalls blocks the others. Those that replace it have their cursors by now; they need the
// first bytes, which its cursor holds. The caller holds mu.
func (u *upload) dropSenders(d commit.Decision) {
	for n, stop := range u.senders {
		if !slices.Contains(d.Storing, n) {
			stop(errStale)
			delete(u.senders, n) // it may be chosen again
		}
	}
}

// startPassing sends the bytes of this node's copy to a node that does not get them from the client. The
// caller holds mu.
func (u *upload) startPassing(p commit.Pass) {
	u.s.Logger.Info("copy sent on to a node that takes an upload over",
		zap.Stringer("upload", u.req.ID), u.trace.Field(), zap.Uint32("to", uint32(p.To)))
	u.startSending(p.To, p.Storing, u.fromCopy)
}

// fromSpool reads the upload's bytes as they come.
func (u *upload) fromSpool(ctx context.Context) (io.ReadCloser, error) { return u.spool.cursor(ctx) }

// fromCopy reads them from the copy that this node has stored.
func (u *upload) fromCopy(ctx context.Context) (io.ReadCloser, error) {
	return u.s.OpenCopy(ctx, &image.Record{
		ID: u.req.ID, User: u.req.User, Name: u.req.Name, Bytes: u.req.Size, Shard: u.shard,
		Copies: []image.Copy{{Node: u.s.Node, Attempt: u.attempt.file.Attempt}},
	}), nil
}

// startSending streams the bytes of an upload on to a storing node. The caller holds mu.
func (u *upload) startSending(
	to image.NodeID, storing []image.NodeID, open func(context.Context) (io.ReadCloser, error),
) {
	ctx, stop := context.WithCancelCause(u.ctx)
	u.senders[to] = stop
	body, err := open(ctx)
	req := u.req
	req.Broadcast = slices.Clone(storing)
	req.Relayed = true
	u.sending.Go(func() {
		if err == nil {
			failpoint.Here("upload/before-send")
			err = u.s.Peers.Send(ctx, to, req, body)
			failpoint.Here("upload/sent")
			body.Close()
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
