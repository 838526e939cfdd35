// Package cluster puts one node together from the packages below it, and takes it apart again: it
// claims the data directory, shakes hands with the other nodes, joins the Raft groups, and serves the API.
package cluster

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/api"
	"imgcluster/cluster/bootstrap"
	"imgcluster/cluster/catalog"
	"imgcluster/cluster/connlimit"
	"imgcluster/cluster/consensus"
	"imgcluster/cluster/hostinfo"
	"imgcluster/cluster/image"
	"imgcluster/cluster/ingest"
	"imgcluster/cluster/oserr"
	"imgcluster/cluster/peer"
	"imgcluster/cluster/read"
	"imgcluster/cluster/repair"
	"imgcluster/cluster/store"
	"imgcluster/cluster/wire"
	"imgcluster/config"
	"imgcluster/crypto"
)

// Node is one running node.
type Node struct {
	cfg     *config.Config
	self    config.Node
	version string
	logger  *zap.Logger
	began   time.Time

	starter  *bootstrap.Starter
	dir      *store.DataDir
	master   *crypto.MasterKey
	imageLog *imageLog
	store    *store.Store
	log      *replicated
	keys     *keyring
	peers    *peer.Set
	ingest   *ingest.Service
	repair   *repair.Service
	uses     *uses
	disk     *disk
	device   hostinfo.Disk // of the data directory
	images   *read.Images
	handler  *api.Handler
	http     *http.Server
	metrics  *metrics
	listener net.Listener // of the API
	shards   shardIDs
	ctx      context.Context
	stop     context.CancelFunc
	wg       sync.WaitGroup
	failed   chan error

	leads     atomic.Int64 // counts changes of leaders
	serving   *serving
	view      *view
	readiness *readiness
	router    *router
	reporter  *reporter
	replicas  *replicas
}

// Start starts the node with this ID. It returns when the node serves its API, though not yet
// images: that it does, and is ready, once it has reached a majority of the nodes. The error is a
// *RefusedError, or a typed one of config, crypto or store, when the node may not run like this.
func Start(
	ctx context.Context, cfg *config.Config, id image.NodeID, version string, logger *zap.Logger,
) (*Node, error) {
	self, err := cfg.Node(id)
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg, self: self, version: version, logger: logger, began: time.Now(),
		log: &replicated{}, shards: dataShards(cfg.Cluster.DataShards), failed: make(chan error, 1),
		disk: newDisk(self.ID, cfg, logger),
	}
	n.serving = newServing(func() { n.handler.Notify() })
	n.view = newView(cfg, self.ID, n.log, n.serving, logger)
	n.readiness = newReadiness(cfg, self.ID, n.log, n.serving, n.disk)
	n.imageLog = newImageLog(imageLogOptions{
		self: self.ID, live: n.view.live, logger: logger, perSecond: cfg.Log.ImagesPerSecond,
		cluster: func() wire.ClusterStatus { return n.reporter.Cluster() },
	})
	n.ctx, n.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := n.start(ctx); err != nil {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Timeouts.Shutdown)
		defer cancel()
		return nil, errors.Join(err, n.Close(closing))
	}
	return n, nil
}

// Failed gives the error for which the node cannot go on.
func (n *Node) Failed() <-chan error { return n.failed }

func (n *Node) start(ctx context.Context) error {
	var err error
	// What can be wrong is found out before the disk is touched, so that a refused first start leaves
	// nothing that the next one would stumble over.
	if err := preflight(n.cfg, n.self.ID, n.logger); err != nil {
		return err
	}
	if n.master, err = loadMaster(n.cfg); err != nil {
		return err
	}
	if n.listener, err = openPorts(n.ctx, n.cfg, n.self); err != nil {
		return err
	}
	warnUnreached(ctx, n.cfg, n.self, n.listener.Addr(), n.logger)
	n.peers = peer.New(n.peerOptions())
	n.view.peers = n.peers
	n.peers.Update(apiAddresses(n.view.membership()))
	n.starter = bootstrap.New(bootstrap.Options{
		Config:     n.cfg,
		Self:       n.self,
		Version:    n.version,
		KeyID:      n.master.ID(),
		Founding:   founding(n.cfg),
		Membership: n.view.membership,
		Peers:      n.peers,
		Logger:     n.logger,
	})
	if err := n.bootstrap(ctx); err != nil {
		return err
	}
	n.uses = &uses{self: n.self.ID, log: n.log, serving: n.serving, membership: n.view.membership}
	n.keys = &keyring{master: n.master, log: n.log, keys: map[keyName]crypto.Key{}}
	if n.ingest, err = ingest.New(n.ingestOptions()); err != nil {
		hint := cmp.Or(oserr.Hint(err, ""), "raise limits.staging_bytes or lower limits.uploads")
		return bootstrap.Refuse(hint, "%v", err)
	}
	n.router = &router{
		self: n.self.ID, shards: n.shards, readiness: n.readiness, view: n.view, serving: n.serving, peers: n.peers,
	}
	n.images = read.New(n.readOptions())
	n.repair = repair.New(n.repairOptions())
	n.disk.store, n.disk.dir, n.disk.repair, n.disk.changed = n.store, n.dir, n.repair, n.peersChanged
	n.wg.Go(func() { n.disk.watchRoom(n.ctx, n.cfg.Timeouts.PeerInterval) })
	n.reporter = &reporter{
		cfg: n.cfg, self: n.self, version: n.version, began: n.began, on: n.listener.Addr(), device: n.device,
		log: n.log, store: n.store, shards: n.shards, view: n.view, serving: n.serving, readiness: n.readiness,
		peers: n.peers, ingest: n.ingest, repair: n.repair, disk: n.disk,
		traffic: func() (rx, tx int64) { return n.handler.Traffic() },
	}
	n.metrics = (&metrics{
		self: n.self.ID, cluster: n.reporter.Cluster, repair: n.repair, log: n.log, logger: n.logger,
	}).register()
	n.serve()
	// Peers that run are met before Raft starts: a node of another cluster, or with an emptied disk,
	// must not take part in a single election. Now that this one answers too, of two that start at
	// once at least one sees the other.
	if _, err := n.starter.Handshake(ctx); err != nil {
		return err
	}
	n.wg.Go(func() { n.peers.Watch(n.ctx) })
	return n.startRaft(ctx)
}

// startRaft starts this node's replicas. Where the data directory turns out to have lost or damaged
// them, and the configuration allows it, the node gives up what it had and is rebuilt from its peers.
func (n *Node) startRaft(ctx context.Context) error {
	n.replicas = &replicas{
		self: n.self.ID, starter: n.starter, log: n.log, view: n.view, serving: n.serving, peers: n.peers,
		ingest: n.ingest, repair: n.repair, rtt: n.cfg.Raft.RTT, leads: &n.leads, fail: n.fail, logger: n.logger,
	}
	err := n.openRaft(ctx)
	rebuild := n.cfg.Local.LostData == config.LostDataReplace && !n.view.admitted
	if errors.Is(err, consensus.ErrDamaged) && rebuild {
		err = n.renew(ctx, err)
	}
	if err != nil {
		return err
	}
	n.view.reload()
	join := n.starter.Introduce()
	if m := n.view.membership(); m.Version > 0 && m.Difference(&join) != "" {
		return bootstrap.Refuse("set cluster.name and cluster.data_shards back: they are fixed once data exists",
			"%s", m.Difference(&join))
	}
	if n.dir.Identity().Unverified {
		n.disk.fail(errUnverified)
	}
	n.wg.Go(n.join)
	n.wg.Go(func() { n.view.watchRaft(n.ctx) })
	return nil
}

// openRaft starts consensus and this node's replicas.
func (n *Node) openRaft(ctx context.Context) error {
	if err := n.dir.Update(func(id *store.Identity) { id.Joined = true }); err != nil {
		return err
	}
	c, err := consensus.Start(ctx, n.consensusOptions())
	if err != nil {
		return err
	}
	n.log.c.Store(c)
	return n.replicas.start(ctx, c)
}

// renew gives up what this node had of the log and the catalog, and has the others admit it again.
func (n *Node) renew(ctx context.Context, cause error) error {
	if c := n.log.c.Swap(nil); c != nil {
		c.Close() // it is given up anyway
	}
	m, err := n.starter.Renew(ctx, cause)
	if err != nil {
		return err
	}
	n.view.admit(m)
	return n.openRaft(ctx)
}

// bootstrap takes this node's place in the cluster, before it takes part in anything, and opens its store.
func (n *Node) bootstrap(ctx context.Context) error {
	heard, err := n.starter.Handshake(ctx)
	if err != nil {
		return err
	}
	if n.dir, err = n.starter.Claim(heard); err != nil {
		return err
	}
	if err := n.openStore(); err != nil {
		return err
	}
	m, err := n.starter.Start(ctx, heard)
	n.view.admit(m)
	return err
}

func (n *Node) openStore() (err error) {
	path := n.cfg.DataDir(n.self.ID)
	n.device = hostinfo.DiskOf(path)
	n.store, err = store.Open(path, store.Options{
		FreeBytesMin: int64(n.cfg.Limits.DiskFreeBytes), FreeInodesMin: int64(n.cfg.Limits.DiskFreeInodes),
		OnFailed:  n.disk.fail,
		OnUnknown: func(path string) { n.logger.Warn("unknown file among the images", zap.String("path", path)) },
	})
	if oserr.ClassOf(err) != oserr.None {
		return bootstrap.Refuse(image.HintOf(err), "data directory %s: %v", path, err)
	}
	return err
}

func loadMaster(cfg *config.Config) (*crypto.MasterKey, error) {
	if text := os.Getenv(crypto.MasterKeyEnv); text != "" {
		return crypto.MasterKeyFromEnv(text)
	}
	if cfg.Loopback() && !anyData(cfg) {
		return crypto.LoadOrCreateMasterKey(cfg.Local.MasterKeyFile)
	}
	return crypto.LoadMasterKey(cfg.Local.MasterKeyFile)
}

// anyData reports whether a node of a loopback cluster has run before. Then its master key exists: a
// fresh one in the place of a lost one would only hide the loss.
func anyData(cfg *config.Config) bool {
	return slices.ContainsFunc(cfg.Cluster.Nodes,
		func(m config.Node) bool { return bootstrap.Claimed(cfg.DataDir(m.ID)) })
}

func (n *Node) peerOptions() peer.Options {
	c := n.cfg
	return peer.Options{
		Self: n.self.ID, Every: c.Timeouts.PeerInterval, Silence: c.Timeouts.PeerSilence,
		Stall: c.Timeouts.Read, Dial: c.Client.Dial,
		Logger: n.logger.Named("peers"), Changed: n.peersChanged,
		Full:  func() bool { return n.disk.lacks() != "" },
		Works: func() bool { return !n.readiness.draining.Load() && n.disk.degraded() == nil },
	}
}

func (n *Node) ingestOptions() ingest.Options {
	c := n.cfg
	return ingest.Options{
		Node: n.self.ID, Log: n.log, Vault: n.vault(), Peers: n.peers, Logger: n.logger.Named("ingest"),
		Shards: n.serving.data, ShardOf: n.shards.of, Members: n.view.nodesOf, Live: n.view.live,
		Room:    n.peers.Room,
		Current: n.view.liveOn, Up: n.peers.Up,
		Owned:      n.imageLog.add,
		ReceivedBy: n.peers.Receives,
		Replicas:   c.Cluster.Replicas, MinReplicas: c.Cluster.MinReplicas,
		UploadsMax: c.Limits.Uploads, StagingBytes: int64(c.Limits.StagingBytes),
		ImageBytes:    int64(c.Limits.ImageBytes),
		AssignTimeout: c.Timeouts.Assign, TakeoverTimeout: c.Timeouts.Takeover,
		UploadTimeout: c.Timeouts.Upload,
		QuorumTimeout: c.Timeouts.Proposal,
	}
}

func (n *Node) readOptions() read.Options {
	return read.Options{
		Self: n.self.ID, Log: n.log, Store: files{n.store}, Keys: n.keys, Peers: n.peers, ShardOf: n.shards.of,
		Locate:  n.router.locate,
		Suspect: func(rec *image.Record, node image.NodeID) { n.repair.Suspect(rec, node) },
		Timeout: n.cfg.Timeouts.Read, Logger: n.logger.Named("read"),
	}
}

func (n *Node) repairOptions() repair.Options {
	c := n.cfg
	return repair.Options{
		Node: n.self.ID, Log: n.log, Logger: n.logger.Named("repair"), Shards: n.serving.data,
		Copies:  &copies{Images: n.images, store: n.store, peers: n.peers, vault: n.vault(), kept: &n.uses.kept},
		Members: n.view.nodesOf, Up: n.peers.Up, Room: n.view.roomOn, Leaving: n.view.leaving,
		Every: c.Repair.Every, Rate: int64(c.Repair.Rate), ScrubEvery: c.Repair.ScrubEvery,
		ScrubRate: int64(c.Repair.ScrubRate),
	}
}

func (n *Node) vault() vault {
	return vault{keys: n.keys, store: n.store, wanted: n.uses.count, degraded: n.disk.degraded}
}

// peersChanged looks at what a peer that came or went leaves to do.
func (n *Node) peersChanged() {
	n.ingest.Kick()
	n.repair.Kick()
}

func (n *Node) consensusOptions() consensus.Options {
	c := n.cfg
	return consensus.Options{
		NodeID: n.self.ID, RaftAddress: n.self.RaftAddr(), Listen: c.ListenOn(n.self).RaftAddr(),
		Dir: c.DataDir(n.self.ID), DeploymentID: deploymentID(n.dir.Identity().ClusterID),
		Applied: n.applied, Restored: n.restored, Live: n.view.live, Candidates: n.view.candidates,
		LeaderChanged: n.leaderChanged,
		Logger:        n.logger.Named("raft"),
		RTT:           c.Raft.RTT,
		ElectionRTT:   uint64(c.Raft.ElectionRTT), HeartbeatRTT: uint64(c.Raft.HeartbeatRTT),
		SnapshotEntries:    uint64(c.Raft.SnapshotEntries),
		CompactionOverhead: uint64(c.Raft.CompactionOverhead), RebalanceEvery: c.Raft.Rebalance,
		ProposalAttempt: c.Timeouts.ProposalAttempt, ProposalTimeout: c.Timeouts.Proposal,
	}
}

// deploymentID keeps Raft messages of clusters apart.
func deploymentID(clusterID string) uint64 {
	b, err := hex.DecodeString(clusterID)
	if err != nil || len(b) < 8 {
		return 1
	}
	return binary.BigEndian.Uint64(b) | 1
}

// applied takes the events of a shard from consensus.
func (n *Node) applied(shard uint64, events []catalog.Event) {
	for _, e := range events {
		if e.Members != nil {
			n.view.update(e.Members)
		}
	}
	n.ingest.Applied(shard, events)
}

// restored takes up a shard whose state came as a snapshot.
func (n *Node) restored(shard uint64) {
	if !n.serving.has(shard) {
		return // replicas.serve does it
	}
	if shard == systemShard {
		n.wg.Go(n.view.reload)
		return
	}
	n.wg.Go(func() {
		if err := n.ingest.Recover(n.ctx, shard); err != nil {
			n.logger.Warn("pending uploads of a restored shard", zap.Uint64("shard", shard), zap.Error(err))
		}
	})
}

func (n *Node) leaderChanged(shard uint64, leader image.NodeID, term uint64) {
	n.logger.Debug("leader changed", zap.Uint64("shard", shard), zap.Uint32("leader", uint32(leader)),
		zap.Uint64("term", term))
	n.leads.Add(1)
	n.ingest.Kick()
	n.view.kick()
}

// connectionsReserve are connections above limits.connections, for probes, the status and other nodes.
const connectionsReserve = 64

// door is what a node tells its clients of itself: it implements api.Node.
type door struct {
	*readiness
	*reporter
	*router
	*admin
	*disk
	*metrics
}

// peerDoor is what a node does for its peers: it implements api.Peers.
type peerDoor struct {
	*bootstrap.Starter
	*reporter
	*admin
	*holdings
}

// serve answers on the API's port from now on.
func (n *Node) serve() {
	held := &holdings{n.self.ID, n.shards, n.images, n.log, n.serving, n.repair}
	admin := &admin{n.cfg, n.log, n.view, n.peers, n.reporter}
	n.handler = api.New(api.Options{
		ID: n.self.ID, Images: images{n.images, n.ingest, n.log},
		Node:   door{n.readiness, n.reporter, n.router, admin, n.disk, n.metrics},
		Peers:  peerDoor{n.starter, n.reporter, admin, held},
		Logger: n.logger.Named("api"), Forward: n.peers.Transport(),
		ImageBytes: int64(n.cfg.Limits.ImageBytes), ListPage: n.cfg.Limits.ListPage,
		Reads: n.cfg.Limits.Reads, Uploads: n.cfg.Limits.Uploads,
		BodyIdle: n.cfg.Timeouts.BodyIdle, BodyRate: int64(n.cfg.Limits.BodyRate),
		BodyGrace: n.cfg.Timeouts.BodyGrace, StatusEvery: n.cfg.Timeouts.PeerInterval,
		HostAllowed: hosts{allowedHosts(n.cfg), n.view}.allowed,
	})
	n.http = &http.Server{
		Handler: n.handler, ReadHeaderTimeout: n.cfg.Timeouts.Header, IdleTimeout: n.cfg.Timeouts.Idle,
		MaxHeaderBytes: int(n.cfg.Limits.HeaderBytes), ErrorLog: zap.NewStdLog(n.logger.Named("http")),
		BaseContext: func(net.Listener) context.Context { return n.ctx },
	}
	limits := connlimit.Options{
		Max: n.cfg.Limits.Connections, Reserve: connectionsReserve, Class: api.ConnectionClass,
		Refuse: http.HandlerFunc(n.handler.RefuseConnection), Logger: n.logger.Named("http"),
	}
	n.wg.Go(func() {
		if err := connlimit.Serve(n.http, n.listener, limits); err != nil && !errors.Is(err, http.ErrServerClosed) {
			n.fail(fmt.Errorf("API of node %d: %w", n.self.ID, err))
		}
	})
	on := zap.Skip()
	if n.cfg.Local.Listen != config.NodeHost {
		on = zap.Stringer("on", n.listener.Addr())
	}
	n.logger.Info("API listens", zap.String("address", n.self.APIAddr()), on)
}

func (n *Node) fail(err error) {
	select {
	case n.failed <- err:
	default:
	}
}

// join introduces the node to the cluster, takes up what an earlier process left, and makes the node
// ready.
func (n *Node) join() {
	err := n.replicas.join(n.ctx)
	switch {
	case n.ctx.Err() != nil:
	case err != nil:
		n.fail(err)
	default:
		n.readiness.ready.Store(true)
		n.repair.Start()
		n.wg.Go(func() { n.replicas.reconcile(n.ctx) })
		n.wg.Go(func() { n.disk.recover(n.ctx) })
		n.logger.Info("ready", zap.Duration("after", time.Since(n.began).Round(time.Millisecond)))
		(&sweeper{n.uses, n.store, n.cfg.Timeouts.Sweep, n.ingest.Leftover(), n.logger}).run(n.ctx)
	}
}

// Close stops the node: no new uploads, running ones to their end or until ctx is done, then no
// requests at all, the leaders handed over, then Raft, the store and the claim. It is safe after a
// failed start.
func (n *Node) Close(ctx context.Context) error {
	n.readiness.draining.Store(true)
	var errs []error
	if n.http != nil {
		n.handler.Notify()
		n.ingest.Drain(ctx)
		n.handler.Shutdown() // peers give what is left to others
		if err := n.http.Shutdown(ctx); err != nil {
			errs = append(errs, n.http.Close())
		}
	} else if n.listener != nil {
		errs = append(errs, n.listener.Close())
	}
	n.stop()
	if n.ingest != nil {
		errs = append(errs, n.ingest.Close())
	}
	n.imageLog.sayLeft()
	if n.repair != nil {
		n.repair.Close()
	}
	n.wg.Wait()
	if n.peers != nil {
		n.peers.Close()
	}
	if c := n.log.c.Load(); c != nil {
		errs = append(errs, c.Close())
	}
	for _, c := range []io.Closer{closer(n.store), closer(n.dir)} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// closer makes a nil pointer a nil interface.
func closer[T any, P interface {
	*T
	io.Closer
}](p P) io.Closer {
	if p == nil {
		return nil
	}
	return p
}
