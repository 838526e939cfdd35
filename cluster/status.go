package cluster

import (
	"bytes"
	"context"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/cluster/repair"
)

// Ready implements api.Node.
func (n *Node) Ready() error {
	if n.draining.Load() {
		return image.Errorf(image.KindNoQuorum, "node %d is stopping", n.self.ID).WithHint("ask another node")
	}
	if err := n.serving(); err != nil {
		return err
	}
	return n.led(n.hosted())
}

// serving says why this node cannot serve, whatever the others do.
func (n *Node) serving() error {
	if !n.ready.Load() {
		return image.Errorf(image.KindNoQuorum, "node %d is starting and has not reached a majority of the nodes", n.self.ID).
			WithHint("start the other nodes, or wait a moment").WithRetry(time.Second)
	}
	if err := n.store.Failed(); err != nil {
		return err
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
	shards := n.hosted()
	if name != "" {
		shards = []uint64{systemShard, n.shardOf(user, name)}
	}
	limit := time.Now().Add(electionsAwaited * time.Duration(n.cfg.Raft.ElectionRTT) * n.cfg.Raft.RTT)
	for {
		if err := n.serving(); err != nil {
			return err
		}
		err := n.led(shards)
		if err == nil || time.Now().After(limit) || !sleep(ctx, n.cfg.Raft.RTT) {
			return err
		}
	}
}

func (n *Node) allShards() []uint64 { return append([]uint64{systemShard}, n.shards...) }

// hosted lists the shards of this node, the system shard first.
func (n *Node) hosted() []uint64 { return append([]uint64{systemShard}, n.served()...) }

// Status implements api.Peers: this node's figures, without what all nodes know from the catalog.
func (n *Node) Status() image.NodeStatus {
	uploads, staging := n.ingest.Stats()
	free, _ := n.store.FreeBytes() // 0 says it too
	rx, tx := n.handler.Traffic()
	state := image.NodeUp
	if n.draining.Load() {
		state = image.NodeDraining
	}
	return image.NodeStatus{
		ID: n.self.ID, API: n.self.APIAddr(), State: state, Ready: n.Ready() == nil, Version: n.version,
		RSSBytes: residentBytes(), DiskFree: free, StagingBytes: staging, Uploads: uploads,
		CPUSeconds: cpuSeconds(), NetRx: rx, NetTx: tx, UptimeS: time.Since(n.began).Seconds(), Serves: n.serveList(), MissingCopies: n.repair.Stats().Missing,
	}
}

// residentBytes is the memory of this process that is in RAM.
func residentBytes() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	fields := bytes.Fields(b)
	if err != nil || len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// cpuSeconds is the processor time of this process.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// Cluster implements api.Node.
func (n *Node) Cluster() image.ClusterStatus {
	s := image.ClusterStatus{Name: n.cfg.Cluster.Name, Ready: true, Replicas: n.cfg.Cluster.Replicas}
	led := map[image.NodeID]int{}
	for _, shard := range n.allShards() {
		sh := image.ShardStatus{ID: shard, Nodes: n.members(shard)}
		if c := n.log.c.Load(); c != nil {
			if leader, term, ok := c.Leader(shard); ok {
				sh.Leader, sh.Term = leader, term
			}
		}
		s.Ready = s.Ready && sh.Leader != 0
		led[sh.Leader]++
		s.Shards = append(s.Shards, sh)
	}
	sums := n.totals()
	s.Images, s.Bytes, s.UnderReplicated = sums.Images, sums.Bytes, sums.UnderReplicated
	for _, x := range n.membership().Members {
		m := x.ID
		st := n.nodeStatus(m)
		if x.State != catalog.MemberActive && st.State == image.NodeUp {
			st.State = image.NodeDraining
		}
		st.Serves = nil
		if t := sums.Nodes[m]; t != nil && st.State == image.NodeDown {
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
	slices.SortFunc(s.Nodes, func(a, b image.NodeStatus) int { return int(a.ID) - int(b.ID) })
	return s
}

// nodeStatus returns this node's figures or the last that a peer told.
func (n *Node) nodeStatus(id image.NodeID) image.NodeStatus {
	if id == n.self.ID {
		return n.Status()
	}
	n.peers.mu.Lock()
	defer n.peers.mu.Unlock()
	p := n.peers.state[id]
	p.status.ID, p.status.API = id, n.peers.addr[id]
	if !p.up {
		p.status.State, p.status.Ready = image.NodeDown, false
	}
	return p.status
}

// Verify implements api.Node.
func (n *Node) Verify(ctx context.Context, sample float64, fix bool, report func(image.VerifyLine) error) (image.VerifySummary, error) {
	if !n.verifying.TryLock() {
		return image.VerifySummary{}, image.Errorf(image.KindOverload, "node %d is verifying already", n.self.ID).
			WithHint("wait for the other verify to end").WithRetry(time.Minute)
	}
	defer n.verifying.Unlock()
	return n.repair.Verify(ctx, repair.VerifyOptions{Sample: sample, Repair: fix}, report)
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

// totals adds up the data shards as this node knows them.
func (n *Node) totals() *catalog.Totals {
	sum := &catalog.Totals{Nodes: map[image.NodeID]*catalog.NodeTotals{}}
	for _, shard := range n.served() {
		n.log.View(shard, func(r catalog.Reader) error { // not started: nothing to add
			t, err := catalog.GetTotals(r)
			if err == nil {
				sum.Add(t)
			}
			return err
		})
	}
	return sum
}
