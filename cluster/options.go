package cluster

import (
	"encoding/binary"
	"encoding/hex"

	"imgcluster/cluster/access"
	"imgcluster/cluster/api"
	"imgcluster/cluster/bootstrap"
	"imgcluster/cluster/consensus"
	"imgcluster/cluster/halfopen"
	"imgcluster/cluster/image"
	"imgcluster/cluster/ingest"
	"imgcluster/cluster/peer"
	"imgcluster/cluster/peerconn"
	"imgcluster/cluster/read"
	"imgcluster/cluster/repair"
	"imgcluster/cluster/store"
	"imgcluster/cluster/thumbnail"
	"imgcluster/cluster/trace"
	"imgcluster/cluster/tracing"
	"imgcluster/cluster/ui"
	"imgcluster/config"
	"imgcluster/crypto"
)

func (n *Node) bootstrapOptions() bootstrap.Options {
	return bootstrap.Options{
		Config:     n.cfg,
		Self:       n.self,
		Version:    n.process.Version,
		KeyIDs:     n.master.ids,
		Initial:    initialJoin(n.cfg),
		Membership: n.view.membership,
		Peers:      n.peers,
		Logger:     n.logger,
	}
}

func (n *Node) peerOptions() peer.Options {
	c := n.cfg
	return peer.Options{
		Self:    n.self.ID,
		Every:   c.Timeouts.PeerInterval,
		Silence: c.Timeouts.PeerSilence,
		Stall:   c.Timeouts.Read,
		Dialer: peerconn.Dialer{
			Credentials: n.own, Protocol: access.ProtocolHTTP,
			Timeout: c.Client.Dial, Unanswered: halfopen.Unanswered,
		},
		Logger:  n.logger.Named("peers"),
		Changed: n.peersChanged,
		Message: n.message,
		Full:    func() bool { return n.disk.lacks() != "" },
		Works:   func() bool { return !n.readiness.shuttingDown.Load() && n.disk.degraded() == nil },
	}
}

func (n *Node) ingestOptions() ingest.Options {
	c := n.cfg
	first, further := crypto.PlainSegments(segmentBytes, ingest.ChunkBytes/segmentBytes)
	return ingest.Options{
		Node:       n.self.ID,
		Log:        n.log,
		Store:      n.encryptedStore(),
		Sealer:     n.keys,
		Peers:      n.peers,
		OpenCopy:   n.openCopy,
		Mail:       n.mail,
		Logger:     n.logger.Named("ingest"),
		Shards:     n.serving.data,
		Serves:     n.serving.has,
		ShardOf:    n.shards.of,
		ShardNodes: n.view.nodesOf,
		Live:       n.view.live,
		Room:       n.peers.Room,
		UpToDate:   n.view.liveOn,
		Up:         n.peers.Up,
		Owned: func(o ingest.Owned) {
			n.uploads.Add(o.Bytes, o.Took)
			n.imageLog.add(o)
		},
		ReceivedBy:      n.peers.Receives,
		Replicas:        c.Cluster.Replicas,
		MinReplicas:     c.Cluster.MinReplicas,
		UploadsMax:      uploadsHeld(c),
		StagingBytes:    int64(c.Limits.StagingBytes),
		Pieces:          [2]int{first, further},
		ReportTimeout:   c.Timeouts.Report,
		TakeoverTimeout: c.Timeouts.Takeover,
		UploadTimeout:   c.Timeouts.Upload,
		QuorumTimeout:   c.Timeouts.Proposal,
	}
}

func (n *Node) readOptions() read.Options {
	return read.Options{
		Self:    n.self.ID,
		Log:     n.log,
		Store:   files{n.store},
		Keys:    n.keys,
		Peers:   n.peers,
		ShardOf: n.shards.of,
		Locate:  n.router.locate,
		Suspect: func(rec *image.Record, node image.NodeID) { n.repair.Suspect(rec, node) },
		Timeout: n.cfg.Timeouts.Read,
		Logger:  n.logger.Named("read"),
	}
}

func (n *Node) repairOptions() repair.Options {
	c := n.cfg
	return repair.Options{
		Node:   n.self.ID,
		Log:    n.log,
		Logger: n.logger.Named("repair"),
		Acted:  n.ingest.Acted,
		Shards: n.serving.data,
		Copies: &copies{
			Images:     n.images,
			peers:      n.peers,
			encrypted:  n.encryptedStore(),
			references: n.references,
		},
		ShardNodes: n.view.nodesOf,
		Up:         n.peers.Up,
		Room:       n.view.roomOn,
		Leaving:    n.view.leaving,
		Every:      c.Repair.Every,
		Rate:       int64(c.Repair.Rate),
		ScrubEvery: c.Repair.ScrubEvery,
		ScrubRate:  int64(c.Repair.ScrubRate),
	}
}

func (n *Node) encryptedStore() encryptedStore {
	return encryptedStore{Store: n.store, keys: n.keys, degraded: n.disk.degraded}
}

func (n *Node) consensusOptions() (consensus.Options, error) {
	c := n.cfg
	disk, err := n.diskSealer()
	if err != nil {
		return consensus.Options{}, err
	}
	snapshots, err := n.master.ring.Sealer(purposeSnapshots)
	return consensus.Options{
		NodeID:             n.self.ID,
		RaftAddress:        n.self.RaftAddr(),
		Listen:             c.ListenOn(n.self).RaftAddr(),
		Dir:                c.DataDir(n.self.ID),
		Disk:               disk,
		Snapshots:          snapshots,
		DeploymentID:       deploymentID(n.dir.Identity().ClusterID),
		Applied:            n.applied,
		Restored:           n.restored,
		Live:               n.view.live,
		Candidates:         n.view.candidates,
		LeaderChanged:      n.leaderChanged,
		Port:               n.port,
		Credentials:        n.own,
		Address:            n.view.raftAddress,
		Members:            n.view.raftAddresses,
		Logger:             n.logger.Named("raft"),
		RTT:                c.Raft.RTT,
		ElectionRTT:        uint64(c.Raft.ElectionRTT),
		HeartbeatRTT:       uint64(c.Raft.HeartbeatRTT),
		SnapshotEntries:    uint64(c.Raft.SnapshotEntries),
		CompactionOverhead: uint64(c.Raft.CompactionOverhead),
		RebalanceEvery:     c.Raft.Rebalance,
		ProposalAttempt:    c.Timeouts.ProposalAttempt,
		ProposalTimeout:    c.Timeouts.Proposal,
	}, err
}

// purposeSnapshots is what the key for snapshots is derived for.
const purposeSnapshots = "imgcluster v1 snapshots of shards"

// diskSealer returns what seals the Raft log and the catalog: under the key of the data directory, which is
// made for one that has neither yet.
func (n *Node) diskSealer() (*crypto.Sealer, error) {
	id := n.dir.Identity()
	if id.DiskKey == nil && !id.Joined {
		wrapped, err := n.master.ring.Sealing().WrapDiskKey(crypto.NewKey())
		if err != nil {
			return nil, err
		}
		if err := n.dir.Update(func(id *store.Identity) { id.DiskKey = wrapped }); err != nil {
			return nil, err
		}
		id.DiskKey = wrapped
	}
	key, err := n.master.unwrapDiskKey(id.DiskKey)
	if err != nil {
		return nil, err
	}
	defer key.Zero()
	return crypto.NewSealer(key)
}

// deploymentID keeps Raft messages of clusters apart.
func deploymentID(clusterID string) uint64 {
	b, err := hex.DecodeString(clusterID)
	if err != nil || len(b) < 8 {
		return 1
	}
	return binary.BigEndian.Uint64(b) | 1
}

// clientAPI is what the node offers to clients: it implements api.Node.
type clientAPI struct {
	*readiness
	*reporter
	*router
	*admin
	*disk
	*metrics
	*backups
}

// uploadsHeld returns how many uploads a node has memory and files for: some more than the API takes at once,
// since one whose body was cut ends a moment after its place went to another.
func uploadsHeld(c *config.Config) int { return c.Limits.Uploads + max(c.Limits.Uploads/4, 1) }

// peerAPI is what the node offers to the other nodes: it implements api.Peers.
type peerAPI struct {
	*bootstrap.Starter
	*reporter
	*holdings
	*admission
	*backups
	mail interface { // of all that a peer.Set has
		Messages(to image.NodeID) (messages <-chan []byte, release func())
	}
}

// Messages implements api.Peers.
func (p peerAPI) Messages(to image.NodeID) (messages <-chan []byte, release func()) {
	return p.mail.Messages(to)
}

// tracer returns what takes the spans of requests, nil when they are not traced.
func (n *Node) tracer() trace.Tracer {
	if n.tracing == nil {
		return nil
	}
	return n.tracing
}

func (n *Node) tracingOptions() tracing.Options {
	return tracing.Options{
		Endpoint: n.cfg.Tracing.Endpoint,
		Sample:   n.cfg.Tracing.Sample.Float(),
		Cluster:  n.cfg.Cluster.Name,
		Node:     uint32(n.self.ID),
		Version:  n.process.Version,
		Logger:   n.logger.Named("tracing"),
	}
}

func (n *Node) apiOptions() api.Options {
	held := &holdings{n.self.ID, n.shards, n.images, n.log, n.serving, n.repair}
	admission := &admission{n.groups, n.view, n.cfg.Timeouts.Proposal / 2}
	backups := &backups{
		self: n.self.ID, cluster: n.cfg.Cluster.Name, version: n.process.Version, shards: n.shards,
		log: n.log, view: n.view, peers: n.peers, ring: n.master.ring,
	}
	admin := &admin{n.cfg, n.log, n.view, n.peers, n.reporter}
	return api.Options{
		ID:          n.self.ID,
		Images:      images{n.images, n.ingest, n.log, n.accounts},
		Node:        clientAPI{n.readiness, n.reporter, n.router, admin, n.disk, n.metrics, backups},
		Peers:       peerAPI{n.starter, n.reporter, held, admission, backups, n.peers},
		Accounts:    n.accounts,
		Keys:        keys{n.master, &rewraps{n.log, n.peers, held, n.master.timeout}, n.keys},
		Sessions:    n.accounts.access,
		Watch:       n.watch,
		UI:          ui.New(),
		Runs:        n.process.Runs,
		Thumbnails:  thumbnail.NewMaker(),
		Ended:       n.ended,
		Logger:      n.logger.Named("api"),
		Level:       n.process.Level,
		Tracer:      n.tracer(),
		Forward:     n.peers.Transport(),
		ImageBytes:  int64(n.cfg.Limits.ImageBytes),
		ListPage:    n.cfg.Limits.ListPage,
		BusyRate:    int64(n.cfg.Limits.BusyRate),
		BusyGrace:   n.cfg.Timeouts.BusyGrace,
		Reads:       n.cfg.Limits.Reads,
		KeyReads:    n.cfg.Limits.KeyReads,
		Uploads:     n.cfg.Limits.Uploads,
		KeyUploads:  n.cfg.Limits.KeyUploads,
		FirstBytes:  int64(n.cfg.Limits.FirstBytes),
		UploadBytes: int64(n.cfg.Limits.UploadBytes),
		Streams:     n.cfg.Limits.StatusStreams,
		BodyIdle:    n.cfg.Timeouts.BodyIdle,
		BodyRate:    int64(n.cfg.Limits.BodyRate),
		BodyGrace:   n.cfg.Timeouts.BodyGrace,
		StatusEvery: n.cfg.Timeouts.PeerInterval,
		HostAllowed: hosts{allowedHosts(n.cfg), n.view}.allowed,
		Authenticate: (&authenticator{
			open: !n.cfg.Secured(), authority: n.authority, keys: n.accounts.access,
		}).authenticate,
	}
}

func (n *Node) newReporter() *reporter {
	return &reporter{
		cfg:         n.cfg,
		self:        n.self,
		version:     n.process.Version,
		began:       n.began,
		on:          n.listener.Addr(),
		device:      n.device,
		log:         n.log,
		store:       n.store,
		shards:      n.shards,
		view:        n.view,
		master:      n.master,
		serving:     n.serving,
		readiness:   n.readiness,
		peers:       n.peers,
		ingest:      n.ingest,
		repair:      n.repair,
		disk:        n.disk,
		identity:    n.dir.Identity,
		certificate: n.certificate,
		uploads:     &n.uploads,
		reads:       &n.reads,
		traffic:     func() (rx, tx int64) { return n.handler.Traffic() },
	}
}
