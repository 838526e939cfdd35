package modes

import (
	"context"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/modes/load"
	"imgcluster/modes/result"
)

// target is the cluster as the load driver sees it.
type target struct{ c *client.Client }

// Put implements load.Target.
func (t target) Put(ctx context.Context, up load.Upload) (load.Outcome, error) {
	r, err := t.c.Put(ctx, client.Upload{User: up.User, Name: up.Name, Size: up.Size, Body: up.Body})
	o := load.Outcome{Owner: int(r.Receipt.Owner), Attempts: r.Attempts, Done: r.Done, SentBytes: r.SentBytes}
	for _, n := range r.Receipt.Replicas {
		o.Replicas = append(o.Replicas, int(n))
	}
	return o, err
}

// Status implements load.Target.
func (t target) Status(ctx context.Context) ([]result.NodeSample, error) {
	s, err := t.c.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	samples := make([]result.NodeSample, len(s.Nodes))
	for i, n := range s.Nodes {
		samples[i] = result.NodeSample{
			ID: int(n.ID), Up: n.State != image.NodeDown, RSSBytes: n.RSSBytes, DiskFreeBytes: n.DiskFree,
			CPUS: n.CPUSeconds, NetRxBytes: n.NetRx, NetTxBytes: n.NetTx,
		}
	}
	return samples, nil
}
