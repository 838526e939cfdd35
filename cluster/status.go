package cluster

import (
	"net"
	"slices"
	"time"

	"imgcluster/cluster/access"
	"imgcluster/cluster/catalog"
	"imgcluster/cluster/hostinfo"
	"imgcluster/cluster/image"
	"imgcluster/cluster/ingest"
	"imgcluster/cluster/peer"
	"imgcluster/cluster/placement"
	"imgcluster/cluster/repair"
	"imgcluster/cluster/sample"
	"imgcluster/cluster/store"
	"imgcluster/cluster/watch"
	"imgcluster/cluster/wire"
	"imgcluster/config"
)

// reporter makes the status of this node and of the cluster. It is safe for concurrent use.
type reporter struct {
	cfg       *config.Config
	self      config.Node
	version   string
	began     time.Time
	on        net.Addr // where the API listens
	device    hostinfo.Disk
	log       *shardLogs
	store     *store.Store
	shards    shardIDs
	view      *view
	master    *masterKeys
	serving   *serving
	readiness *readiness
	peers     *peer.Set
	ingest    *ingest.Service
	repair    *repair.Service
	disk      *disk
	identity  func() store.Identity
	// certificate is the operator's; nil: there is none.
	certificate *access.Files
	uploads     *watch.Rates // that this node owns
	reads       *watch.Rates
	traffic     func() (rx, tx int64) // bytes of the API
}

// Status implements api.Peers: this node's figures, without what all nodes know from the catalog.
func (p *reporter) Status() wire.NodeStatus {
	uploads, staging := p.ingest.Stats()
	lacks := p.disk.lacks()
	free, inodes, _ := p.store.Free() // an error leaves 0
	if inodes == store.NoInodeLimit {
		inodes = wire.NoInodeLimit
	}
	rx, tx := p.traffic()
	state := wire.NodeUp
	if p.readiness.shuttingDown.Load() {
		state = wire.NodeDraining
	}
	problem := ""
	if err := p.disk.degraded(); err != nil {
		problem = err.Error()
	}
	keys := p.master.state()
	read, written, busy := p.device.Counters()
	files, fileBytes := p.store.Usage()
	rss, cpu := hostinfo.Process()
	status := wire.NodeStatus{
		ID:      p.self.ID,
		API:     p.self.APIAddr(),
		State:   state,
		Ready:   p.readiness.Ready() == nil,
		Problem: problem,
		Version: p.version,
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
		UptimeS:        time.Since(p.began).Seconds(),
		MissingCopies:  p.repair.Stats().Missing,
		Serves:         p.serving.all(),
		Leads:          p.reports(),
		Receiving:      p.ingest.Receiving(),
		Incarnation:    p.identity().Incarnation,
		MasterKeys:     &keys,
	}
	if p.certificate != nil {
		status.CertificateUntil = p.certificate.Leaf().NotAfter
	}
	now := time.Now()
	status.Time = now
	status.UploadsTotal, status.UploadBytesTotal = p.uploads.Totals()
	status.UploadP50S, status.UploadP99S = p.uploads.Quantiles(now)
	status.ReadsTotal, status.ReadBytesTotal = p.reads.Totals()
	status.ReadP50S, status.ReadP99S = p.reads.Quantiles(now)
	return status
}

// Info implements api.Node.
func (p *reporter) Info() wire.NodeInfo {
	info := wire.NodeInfo{ID: p.self.ID, Version: p.version, Settings: p.cfg.Shared()}
	info.Machine = hostinfo.Read(p.cfg.DataDir(p.self.ID), p.on.(*net.TCPAddr).AddrPort().Addr())
	info.Clock = time.Now()
	return info
}

// Cluster implements api.Node.
func (p *reporter) Cluster() wire.ClusterStatus {
	s := wire.ClusterStatus{
		Name: p.cfg.Cluster.Name, Ready: true, Replicas: p.cfg.Cluster.Replicas, Insecure: p.cfg.OpenToAll(),
	}
	led := map[image.NodeID]int{}
	reports := p.reported()
	sums := &catalog.Totals{Nodes: map[image.NodeID]*catalog.NodeTotals{}}
	for _, shard := range p.shards.withSystem() {
		sh := wire.ShardStatus{ID: shard, Nodes: p.view.nodesOf(shard)}
		c := p.log.c.Load()
		report, reported := reports[shard]
		switch {
		case c != nil && p.serving.has(shard):
			sh.Leader, sh.Term, _ = c.Leader(shard)
			sums.Add(p.totals(shard))
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
	for _, x := range p.view.membership().Members {
		m := x.ID
		st := p.nodeStatus(m)
		if x.State != catalog.MemberActive && st.State == wire.NodeUp {
			st.State = wire.NodeDraining
		}
		st.Serves, st.Leads, st.Receiving = nil, nil, nil
		st.Incarnation, st.MasterKeys, st.Time = "", nil, time.Time{}
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
	s.Judge(time.Now())
	return s
}

// nodeStatus returns this node's status, or the last that a peer sent.
func (p *reporter) nodeStatus(id image.NodeID) wire.NodeStatus {
	if id == p.self.ID {
		return p.Status()
	}
	return p.peers.Status(id)
}

// totals are a shard's as this node knows them.
func (p *reporter) totals(shard uint64) *catalog.Totals {
	t := &catalog.Totals{}
	p.log.View(shard, func(r catalog.Reader) (err error) { // not started: nothing to add
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

// totals are the sums of a report.
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
func (p *reporter) reported() map[uint64]leaderReport {
	newest := map[uint64]leaderReport{}
	for node, list := range p.peers.Reports() {
		for _, r := range list {
			if old, ok := newest[r.ID]; !ok || r.Term > old.Term {
				newest[r.ID] = leaderReport{r, node}
			}
		}
	}
	return newest
}

// reports returns the totals of the shards that this node leads, where there are nodes that do not hold them.
func (p *reporter) reports() (list []wire.ShardReport) {
	c := p.log.c.Load()
	if c == nil || len(p.view.membership().Members) <= placement.ShardNodes {
		return nil
	}
	for _, shard := range p.serving.data() {
		leader, term, _ := c.Leader(shard)
		if leader != p.self.ID {
			continue
		}
		t := p.totals(shard)
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
