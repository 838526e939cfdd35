package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/bootstrap"
	"imgcluster/cluster/halfopen"
	"imgcluster/cluster/hostinfo"
	"imgcluster/config"
)

// openPorts opens the clients' port and the nodes'.
func openPorts(
	ctx context.Context, cfg *config.Config, self config.Node,
) (api, peers net.Listener, err error) {
	on := cfg.ListenOn(self)
	if peers, err = halfopen.Listen(ctx, on.RaftAddr()); err != nil {
		return nil, nil, listenError(cfg, self, "Raft", "raft_port", err)
	}
	if api, err = halfopen.Listen(ctx, on.APIAddr()); err != nil {
		return nil, nil, errors.Join(listenError(cfg, self, "API", "api_port", err), peers.Close())
	}
	return api, peers, nil
}

// TryPorts opens a node's ports and closes them again. Its error is why a node could not.
func TryPorts(ctx context.Context, cfg *config.Config, self config.Node) error {
	api, peers, err := openPorts(ctx, cfg, self)
	if err != nil {
		return err
	}
	return errors.Join(api.Close(), peers.Close())
}

func listenError(cfg *config.Config, self config.Node, what, setting string, err error) error {
	hint := cfg.Listener(setting).Hint(err)
	if hint == "" {
		return fmt.Errorf("%s of node %d: %w", what, self.ID, err)
	}
	return bootstrap.Refuse(hint, "%s of node %d: %w", what, self.ID, err)
}

// warnUnreached says that this node listens where no other one reaches it. Debian's /etc/hosts, for example,
// has the host's own name stand for 127.0.1.1.
func warnUnreached(
	ctx context.Context, cfg *config.Config, self config.Node, on net.Addr, logger *zap.Logger,
) {
	if !on.(*net.TCPAddr).AddrPort().Addr().IsLoopback() {
		return
	}
	for _, other := range cfg.Cluster.Nodes {
		if other.ID != self.ID && !loopback(ctx, other.Host, cfg.Client.Dial) {
			logger.Warn("no other host reaches this node: it listens on a loopback address",
				zap.String("host", cfg.ListenOn(self).Host), zap.Stringer("on", on),
				zap.Uint32("peer", uint32(other.ID)),
				zap.String("hint", "look for the name in /etc/hosts, or set node.listen, such as 0.0.0.0"))
			return
		}
	}
}

// loopback reports whether a host stands for a loopback address here. It is asked for as long as timeout.
func loopback(ctx context.Context, host string, timeout time.Duration) bool {
	addrs := hostinfo.Addresses(ctx, host, timeout)
	return len(addrs) > 0 && addrs[0].IsLoopback()
}
