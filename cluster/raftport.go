package cluster

import (
	"context"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/image"
)

// raftPatience is how long a node that sends Raft's messages may not be reached on its Raft port.
const raftPatience = 10 * time.Second

// watchRaft logs which nodes run and are not reached on their Raft port, as where a firewall is between.
func (v *view) watchRaft(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for said := map[image.NodeID]bool{}; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		c := v.log.c.Load()
		for id, address := range v.raftAddresses() {
			if c == nil || id == v.self {
				continue
			}
			switch err := c.Unreachable(address, raftPatience); {
			case err != nil && !said[id] && c.HeardWithin(address, raftPatience):
				v.logger.Warn("peer is up, but not reached at its raft_port", zap.Uint32("peer", uint32(id)),
					zap.String("address", address), zap.Error(err),
					zap.String("hint", "open its raft_port to the other nodes"))
				said[id] = true
			case err == nil && said[id]:
				v.logger.Info("peer is reached at its raft_port again", zap.Uint32("peer", uint32(id)))
				said[id] = false
			}
		}
	}
}
