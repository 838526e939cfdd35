package stress

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/hostinfo"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wait"
	"imgcluster/cluster/wire"
	"imgcluster/config"
	"imgcluster/modes/runlog"
)

const (
	preflightTimeout = 2500 * time.Millisecond // for the cluster to answer and to have a quorum
	preflightPoll    = 100 * time.Millisecond
	roundTrips       = 7 // to each node; the first one connects and does not count
)

// found is what the preflight found.
type found struct {
	status     wire.ClusterStatus
	nodes      []nodeFound    // the members of the cluster
	notMembers []image.NodeID // nodes of the configuration that are not members
	unlisted   []image.NodeID // members that the configuration does not list
	client     hostinfo.Host  // this machine
	version    string         // of this program
}

// nodeFound is one member of the cluster.
type nodeFound struct {
	ID      image.NodeID
	info    wire.NodeInfo
	err     error         // why it did not answer
	latency time.Duration // of the median round trip
	ahead   time.Duration // how far its clock is ahead of this machine's
	within  time.Duration // the error of ahead: half of the round trip in which it was measured
}

// preflight asks every member of the cluster. dir is where the client writes its log. It is an error when
// nobody answers or when there is no quorum.
func preflight(ctx context.Context, c *client.Client, cfg *config.Config, dir string) (*found, error) {
	status, err := awaitQuorum(ctx, c)
	if err != nil {
		return nil, err
	}
	f := &found{status: status, nodes: make([]nodeFound, len(status.Nodes))}
	f.compare(cfg)
	limited, cancel := context.WithTimeout(ctx, preflightTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for i, n := range status.Nodes {
		f.nodes[i].ID = n.ID
		wg.Go(func() { f.nodes[i].ask(limited, c) })
	}
	wg.Wait()
	f.client = hostinfo.Read(dir, ownAddress(cfg.Cluster.Nodes[0].APIAddr()))
	return f, ctx.Err()
}

// compare finds the differences between the configuration and the members.
func (f *found) compare(cfg *config.Config) {
	var listed, members []image.NodeID
	for _, n := range cfg.Cluster.Nodes {
		listed = append(listed, n.ID)
	}
	for _, n := range f.status.Nodes {
		members = append(members, n.ID)
	}
	without := func(a, b []image.NodeID) []image.NodeID {
		return slices.DeleteFunc(slices.Clone(a), func(id image.NodeID) bool { return slices.Contains(b, id) })
	}
	f.notMembers = without(listed, members)
	f.unlisted = without(members, listed)
}

// awaitQuorum waits a moment, as elections take, for the cluster to have a quorum and for the nodes that
// are up to be ready.
func awaitQuorum(ctx context.Context, c *client.Client) (wire.ClusterStatus, error) {
	limited, cancel := context.WithTimeout(ctx, preflightTimeout)
	defer cancel()
	var last wire.ClusterStatus // the last answer with a quorum, or the last one when none has it
	answered := false
	for limited.Err() == nil {
		status, err := c.Cluster(limited)
		switch {
		case err != nil && limited.Err() == nil:
			return status, err
		case err == nil && status.Ready && allReady(status):
			return status, nil
		case err == nil && (status.Ready || !last.Ready):
			last, answered = status, true
		}
		wait.For(limited, preflightPoll)
	}
	switch {
	case ctx.Err() != nil:
		return last, ctx.Err()
	case !answered:
		return last, c.NobodyAnswers(fmt.Sprintf("no node answers within %s", preflightTimeout))
	case !last.Ready:
		return last, NoLeader(last)
	}
	return last, nil
}

// allReady reports whether every node that is up, and reports no problem, is ready.
func allReady(s wire.ClusterStatus) bool {
	return !slices.ContainsFunc(s.Nodes, func(n wire.NodeStatus) bool {
		return n.Condition() == string(wire.NodeUp) && !n.Ready
	})
}

// ownAddress returns the address of this machine from which it reaches another one.
func ownAddress(to string) netip.Addr {
	conn, err := net.Dial("udp", to) // sends no packet
	if err != nil {
		return netip.Addr{}
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
}

// ask asks a node several times, for its latency and its clock.
func (n *nodeFound) ask(ctx context.Context, c *client.Client) {
	trips := make([]time.Duration, 0, roundTrips)
	for range roundTrips {
		began := time.Now()
		info, err := c.NodeInfo(ctx, n.ID)
		if err != nil {
			n.err = err
			return
		}
		trip := time.Since(began)
		if n.within == 0 || trip/2 < n.within {
			n.within = trip / 2
			n.ahead = info.Clock.Sub(began.Add(trip / 2))
		}
		n.info = info
		trips = append(trips, trip)
	}
	trips = trips[1:]
	slices.Sort(trips)
	n.latency = trips[len(trips)/2]
}

// answered returns the nodes that answered.
func (f *found) answered() []nodeFound {
	return slices.DeleteFunc(slices.Clone(f.nodes), func(n nodeFound) bool { return n.err != nil })
}

// describe completes the first record of the log.
func (f *found) describe(cfg *config.Config, run *runlog.Run) {
	describe := func(id image.NodeID, version string, m hostinfo.Host) runlog.Host {
		return runlog.Host{
			ID:          int(id),
			Name:        m.Host,
			CPUs:        m.CPUs,
			MemoryBytes: m.MemoryBytes,
			LinkBytesPS: m.LinkBytesPS,
			Version:     version,
		}
	}
	run.Hosts = runlog.Hosts{Client: describe(0, f.version, f.client)}
	run.Settings = cfg.Shared()
	for i, n := range f.answered() {
		if i == 0 {
			run.Settings = map[string]string{} // a copy, which is changed below
			maps.Copy(run.Settings, n.info.Settings)
		}
		run.Hosts.Nodes = append(run.Hosts.Nodes, describe(n.ID, n.info.Version, n.info.Machine))
	}
	run.Settings["cluster.nodes"] = addresses(cfg)
	run.Nodes = nil
	for _, n := range f.nodes {
		run.Nodes = append(run.Nodes, int(n.ID))
	}
	run.Replicas = f.status.Replicas
}

// addresses returns the setting cluster.nodes.
func addresses(cfg *config.Config) string {
	for _, s := range cfg.Settings() {
		if s.Key == "cluster.nodes" {
			return s.Value
		}
	}
	return ""
}
