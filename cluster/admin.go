package cluster

import (
	"context"
	"net"
	"slices"
	"strconv"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/peer"
	"imgcluster/cluster/wire"
	"imgcluster/config"
)

// admin lists the members and changes them.
type admin struct {
	cfg      *config.Config
	log      *shardLogs
	view     *view
	peers    *peer.Set
	reporter *reporter
}

// Members implements api.Node.
func (a *admin) Members(ctx context.Context) ([]wire.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeouts.Read)
	defer cancel()
	m, err := a.view.newest(ctx)
	if err != nil {
		return nil, err
	}
	up := a.peers.Up()
	status := a.reporter.Cluster()
	list := make([]wire.Member, len(m.Members))
	for i, x := range m.Members {
		list[i] = wire.Member{
			ID: x.ID, API: x.API, Raft: x.Raft, State: string(x.State),
			Up: slices.Contains(up, x.ID),
		}
		for shard, l := range m.Shards {
			if _, on := l.Of(x.ID); !on || shard == systemShard {
				continue
			}
			list[i].Shards++
			if l.Next != nil || slices.Contains(catalog.NodesOf(l.Old), x.ID) {
				list[i].Moving++
			}
		}
		for _, s := range status.Nodes {
			if s.ID == x.ID {
				list[i].Images, list[i].Leads = s.StoredImages, s.LeaderOf
			}
		}
	}
	return list, nil
}

// ChangeMember implements api.Node.
func (a *admin) ChangeMember(ctx context.Context, c wire.MemberChange) error {
	var cmd catalog.Command
	switch c.Op {
	case wire.MemberAdd:
		if err := a.checkNew(c); err != nil {
			return err
		}
		cmd.AddMember = &catalog.AddMember{ID: c.ID, API: c.API, Raft: c.Raft}
	case wire.MemberDrain, wire.MemberResume:
		cmd.DrainMember = &catalog.DrainMember{
			ID: c.ID, Drain: c.Op == wire.MemberDrain,
			Least: a.cfg.Cluster.Replicas,
		}
	case wire.MemberRemove:
		cmd.RemoveMember = &catalog.RemoveMember{ID: c.ID, Least: a.cfg.Cluster.Replicas}
	default:
		return image.Errorf(image.KindInvalid, "unknown change %.20q", c.Op).
			WithHint("op is add, drain, resume or remove")
	}
	_, err := a.log.Do(ctx, systemShard, cmd)
	return err
}

// checkNew holds a new member's addresses to the rules of the configuration, which it is to be listed in.
func (a *admin) checkNew(c wire.MemberChange) error {
	const hint = "give the API's and Raft's address as HOST:PORT, with the same host"
	host, port, err := net.SplitHostPort(c.API)
	x := config.Node{ID: c.ID, Host: host}
	if err == nil {
		x.APIPort, err = strconv.Atoi(port)
	}
	if err == nil {
		_, port, err = net.SplitHostPort(c.Raft)
	}
	if err == nil {
		x.RaftPort, err = strconv.Atoi(port)
	}
	if err != nil || x.APIAddr() != c.API || x.RaftAddr() != c.Raft {
		return image.Errorf(image.KindInvalid, "%.100q and %.100q are not two addresses of one host",
			c.API, c.Raft).WithHint(hint)
	}
	if wrong := config.CheckNode(x); wrong != nil {
		return image.Errorf(image.KindInvalid, "%s", wrong[0]).WithHint(wrong[0].Hint)
	}
	for _, m := range a.view.membership().Members {
		for _, theirs := range []string{m.API, m.Raft} {
			if m.ID != c.ID && (config.SameAddress(theirs, c.API) || config.SameAddress(theirs, c.Raft)) {
				return image.Errorf(image.KindInvalid, "node %d has the address %s", m.ID, theirs).
					WithHint("choose other ports, or remove that member first")
			}
		}
	}
	return nil
}
