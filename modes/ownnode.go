package modes

import (
	"context"
	"net"
	"net/netip"

	"imgcluster/cluster/hostinfo"
	"imgcluster/cluster/image"
	"imgcluster/config"
)

// ownNode returns the node of the configuration that is on this machine; 0 when that is none, or not clear.
func ownNode(ctx context.Context, cfg *config.Config) image.NodeID {
	nodes := cfg.Cluster.Nodes
	if len(nodes) == 1 {
		return nodes[0].ID
	}
	found := image.NodeID(0)
	for _, n := range nodes {
		switch {
		case !isOwn(ctx, cfg, n.Host):
		case found != 0:
			return 0
		default:
			found = n.ID
		}
	}
	return found
}

// isOwn reports whether a host is this machine: one of its network interfaces has the address.
func isOwn(ctx context.Context, cfg *config.Config, host string) bool {
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, addr := range hostinfo.Addresses(ctx, host, cfg.Client.Dial) { // as long as a connection may take
		for _, o := range own {
			if prefix, err := netip.ParsePrefix(o.String()); err == nil && prefix.Addr().Unmap() == addr.Unmap() {
				return true
			}
		}
	}
	return false
}
