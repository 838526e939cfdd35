package cluster

import (
	"context"
	"net"
	"slices"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/hostinfo"
	"imgcluster/cluster/image"
	"imgcluster/cluster/placement"
	"imgcluster/cluster/sample"
	"imgcluster/cluster/store"
	"imgcluster/cluster/wait"
	"imgcluster/cluster/wire"
)

// Ready implements api.Node.
func (n *Node) Ready() error {
	if n.draining.Load() {
		return image.Errorf(image.KindNoQuorum, "node %d is stopping", n.self.ID).WithHint("ask another node")
	}
	if err := n.started(); err != nil {
		return err
	}
	if err := n.disk.degraded(); err != nil {
		return err
	}
	return n.led(n.serving.hosted())
}

// started says why this node cannot serve, whatever the others do.
func (n *Node) started() error {
	if !n.ready.Load() {
		return image.Errorf(image.KindNoQuorum, "node %d is starting and has not reached a majority of the nodes",
			n.self.ID).
			WithHint("start the other nodes, or wait a moment").WithRetry(time.Second)
	}
	return nil
}

func (n *Node) led(shards []uint64) error {
	for _, shard := range shards {
		if n.log.Leader(shard) == 0 {
			return image.Errorf(image.KindNoQuorum, "shard %d has no leader", shard).
				WithHint("wait for the election; if it does not end, start more nodes").WithRetry(time.Second)
		}
	}
	return nil
}

// electionsAwaited is how many times the least time of an election a request waits for a leader.
const electionsAwaited = 3

// Await implements api.Node.
func (n *Node) Await(ctx context.Context, user, name string) error {
	shards := n.serving.hosted()
	if name != "" {
		shard := n.shardOf(user, name)
		shards = []uint64{systemShard, shard}
		if n.ready.Load() && !n.serving.has(shard) {
			return image.Errorf(image.KindNoQuorum, "no node that holds shard %d answers", shard).
				WithHint("start the nodes that are down").WithRetry(time.Second)
		}
	}
	limit := time.Now().Add(electionsAwaited * time.Duration(n.cfg.Raft.ElectionRTT) * n.cfg.Raft.RTT)
	for {
		err := n.started()
		if err == nil {
			err = n.led(shards)
		} else if name == "" || !n.serving.has(shards[1]) {
			return err
		} // else the others give it uploads of the shard by now: it is ready at once
		if err == nil || time.Now().After(limit) || !wait.For(ctx, n.cfg.Raft.RTT) {
			return err
		}
	}
}

// Status implements api.Peers: this node's figures, without what all nodes know from the catalog.
func (n *Node) Status() wire.NodeStatus {
	uploads, staging := n.ingest.Stats()
	lacks := n.disk.lacks()
	free, inodes, _ := n.store.Free() // 0 says it too
	if inodes == store.NoInodeLimit {
		inodes = wire.NoInodeLimit
	}
	rx, tx := n.handler.Traffic()
	state := wire.NodeUp
	if n.draining.Load() {
		state = wire.NodeDraining
	}
	problem := ""
	if err := n.disk.degraded(); err != nil {
		problem = err.Error()
	}
	read, written, busy := n.device.Counters()
	files, fileBytes := n.store.Usage()
	rss, cpu := hostinfo.Process()
	return wire.NodeStatus{
		ID:      n.self.ID,
		API:     n.self.APIAddr(),
		State:   state,
		Ready:   n.Ready() == nil,
		Problem: problem,
		Version: n.version,
		Node: sample.Node{
			RSSBytes:         rss,
			DiskFreeBytes:    free,
			CPUS:             cpu.Seconds(),
			NetRxBytes:       rx,
			NetTxBytes:       tx,
			StagingBytes:     staging,
			DiskReadBytes:    read,
			DiskWrittenBytes: written,
			DiskBusyS:        busy.Seconds(),
		},
		Files:          files,
		FileBytes:      fileBytes,
		DiskFreeInodes: inodes,
		DiskFull:       lacks != "",
		DiskLacks:      lacks,
		Uploads:        uploads,
		UptimeS:        time.Since(n.began).Seconds(),
		MissingCopies:  n.repair.Stats().Missing,
		Serves:         n.serving.all(),
		Leads:          n.reports(),
		Receiving:      n.ingest.Receiving(),
	}
}

// Info implements api.Node.
func (n *Node) Info() wire.NodeInfo {
	info := wire.NodeInfo{ID: n.self.ID, Version: n.version, Settings: n.cfg.Shared()}
	info.Machine = hostinfo.Read(n.cfg.DataDir(n.self.ID), n.listener.Addr().(*net.TCPAddr).AddrPort().Addr())
	info.Clock = time.Now()
	return info
}

// Cluster implements api.Node.
func (n *Node) Cluster() wire.ClusterStatus {
	s := wire.ClusterStatus{Name: n.cfg.Cluster.Name, Ready: true, Replicas: n.cfg.Cluster.Replicas}
	led := map[image.NodeID]int{}
	reports := n.reported()
	sums := &catalog.Totals{Nodes: map[image.NodeID]*catalog.NodeTotals{}}
	for _, shard := range allShards(n.shards) {
		sh := wire.ShardStatus{ID: shard, Nodes: n.members(shard)}
		c := n.log.c.Load()
		report, reported := reports[shard]
		switch {
		case c != nil && n.serving.has(shard):
			sh.Leader, sh.Term, _ = c.Leader(shard)
			sums.Add(n.totals(shard))
		case reported:
			sh.Leader, sh.Term = report.leader, report.Term
			sums.Add(report.totals())
		case c != nil:
			sh.Leader, sh.Term, _ = c.Leader(shard)
		}
		s.Ready = s.Ready && sh.Leader != 0
		led[sh.Leader]++
		s.Shards = append(s.Shards, sh)
	}
	s.Images, s.Bytes, s.UnderReplicated = sums.Images, sums.Bytes, sums.UnderReplicated
	for _, x := range n.membership().Members {
		m := x.ID
		st := n.nodeStatus(m)
		if x.State != catalog.MemberActive && st.State == wire.NodeUp {
			st.State = wire.NodeDraining
		}
		st.Serves, st.Leads, st.Receiving = nil, nil, nil
		if t := sums.Nodes[m]; t != nil && st.State == wire.NodeDown {
			s.UnderReplicated = min(s.Images, s.UnderReplicated+t.Stored.Images)
		}
		s.UnderReplicated = min(s.Images, s.UnderReplicated+st.MissingCopies)
		st.LeaderOf = led[m]
		if t := sums.Nodes[m]; t != nil {
			st.OwnedImages, st.OwnedBytes = t.Owned.Images, t.Owned.Bytes
			st.StoredImages, st.StoredBytes = t.Stored.Images, t.Stored.Bytes
		}
		s.Nodes = append(s.Nodes, st)
	}
	slices.SortFunc(s.Nodes, func(a, b wire.NodeStatus) int { return int(a.ID) - int(b.ID) })
	return s
}

// nodeStatus returns this node's figures or the last that a peer told.
func (n *Node) nodeStatus(id image.NodeID) wire.NodeStatus {
	if id == n.self.ID {
		return n.Status()
	}
	return n.peers.Status(id)
}

// Suspect implements api.Peers.
func (n *Node) Suspect(user, name string) error {
	var rec *image.Record
	err := n.log.View(n.shardOf(user, name), func(r catalog.Reader) (err error) {
		rec, err = catalog.GetRecord(r, user, name)
		return err
	})
	if err == nil && rec != nil {
		n.repair.Suspect(rec, n.self.ID)
	}
	return err
}

// totals are a shard's as this node knows them.
func (n *Node) totals(shard uint64) *catalog.Totals {
	t := &catalog.Totals{}
	n.log.View(shard, func(r catalog.Reader) (err error) { // not started: nothing to add
		t, err = catalog.GetTotals(r)
		return err
	})
	return t
}

// leaderReport is a shard's report and whose it is.
type leaderReport struct {
	wire.ShardReport
	leader image.NodeID
}

// totals are the sums that a report tells.
func (r *leaderReport) totals() *catalog.Totals {
	t := &catalog.Totals{
		Images: r.Images, Bytes: r.Bytes, UnderReplicated: r.UnderReplicated,
		Nodes: map[image.NodeID]*catalog.NodeTotals{},
	}
	for _, x := range r.Nodes {
		t.Nodes[x.ID] = &catalog.NodeTotals{
			Owned:  catalog.Load{Images: x.OwnedImages, Bytes: x.OwnedBytes},
			Stored: catalog.Load{Images: x.StoredImages, Bytes: x.StoredBytes},
		}
	}
	return t
}

// reported are the newest reports of the shards' leaders.
func (n *Node) reported() map[uint64]leaderReport {
	newest := map[uint64]leaderReport{}
	for node, list := range n.peers.Reports() {
		for _, r := range list {
			if old, ok := newest[r.ID]; !ok || r.Term > old.Term {
				newest[r.ID] = leaderReport{r, node}
			}
		}
	}
	return newest
}

// reports tells of the shards that this node leads, where there are nodes that do not hold them.
func (n *Node) reports() (list []wire.ShardReport) {
	c := n.log.c.Load()
	if c == nil || len(n.membership().Members) <= placement.ShardNodes {
		return nil
	}
	for _, shard := range n.serving.data() {
		leader, term, _ := c.Leader(shard)
		if leader != n.self.ID {
			continue
		}
		t := n.totals(shard)
		r := wire.ShardReport{
			ID: shard, Term: term, Images: t.Images, Bytes: t.Bytes,
			UnderReplicated: t.UnderReplicated,
		}
		for id, x := range t.Nodes {
			r.Nodes = append(r.Nodes, wire.NodeReport{
				ID: id, OwnedImages: x.Owned.Images, OwnedBytes: x.Owned.Bytes, StoredImages: x.Stored.Images,
				StoredBytes: x.Stored.Bytes,
			})
		}
		list = append(list, r)
	}
	return list
}

// Route implements api.Node.
func (n *Node) Route(user, name string) (address string, here bool) {
	shard := n.shardOf(user, name)
	if !n.ready.Load() || n.serving.has(shard) {
		return "", true
	}
	if node := n.holder(shard); node != 0 {
		return n.peers.Address(node), false
	}
	return "", false
}

// holder returns a peer that serves a shard, another one from time to time; 0 when there is none.
func (n *Node) holder(shard uint64) image.NodeID {
	up := n.peers.Up()
	holders := slices.DeleteFunc(n.members(shard),
		func(id image.NodeID) bool { return !slices.Contains(up, id) || !n.servedBy(id, shard) })
	if len(holders) == 0 {
		return 0
	}
	return holders[int(n.turn.Add(1))%len(holders)]
}

// locate gives every data shard to a node that serves it, this one where it does.
func (n *Node) locate() (map[image.NodeID][]uint64, error) {
	where := map[image.NodeID][]uint64{}
	for _, shard := range n.shards {
		node := n.self.ID
		if !n.serving.has(shard) {
			node = n.holder(shard)
		}
		if node == 0 {
			return nil, image.Errorf(image.KindNoQuorum, "no node that holds shard %d answers", shard).
				WithHint("start the nodes that are down").WithRetry(time.Second)
		}
		where[node] = append(where[node], shard)
	}
	return where, nil
}

// ListShards implements api.Peers.
func (n *Node) ListShards(
	ctx context.Context, shards []uint64, user, prefix, after string, limit int,
) (wire.List, error) {
	for _, shard := range shards {
		switch {
		case !slices.Contains(n.shards, shard):
			return wire.List{}, image.Errorf(image.KindInvalid, "%d is not a data shard", shard).
				WithHint("GET /v1/cluster lists the shards; the first is not one of them")
		case !n.serving.has(shard):
			return wire.List{}, image.Errorf(image.KindNoQuorum, "shard %d is not on node %d, or not up to date",
				shard, n.self.ID).
				WithHint("ask a node that GET /v1/cluster lists for the shard").WithRetry(time.Second)
		}
	}
	return n.images.ListShards(ctx, shards, user, prefix, after, limit)
}
