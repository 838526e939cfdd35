// Package cluster puts one node together from the packages below it, and takes it apart again: it
// claims the data directory, shakes hands with the other nodes, joins the Raft groups, and serves the API.
package cluster

import (
	"bytes"
	"cmp"
	"context"
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
	"imgcluster/cluster/wait"
	"imgcluster/cluster/wire"
	"imgcluster/config"
	"imgcluster/crypto"
)

// RefusedError says that this node may not run with what it was given.
type RefusedError struct {
	Reason string
	hint   string
}

func (r *RefusedError) Error() string { return r.Reason }

// Hint returns the next step for the user.
func (r *RefusedError) Hint() string { return r.hint }

// ExitStatus returns the program's exit status 2: the configuration or the machine has to change.
func (r *RefusedError) ExitStatus() int { return 2 }

// Node is one running node.
type Node struct {
	cfg     *config.Config
	self    config.Node
	version string
	logger  *zap.Logger
	began   time.Time

	dir      atomic.Pointer[store.DataDir]
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

	run       string              // tells this start of the node from others
	admitted  *catalog.Membership // what the others took this node in with at this start
	leads     atomic.Int64        // counts changes of leaders
	serving   *serving
	view      *view
	readiness *readiness
	router    *router
	reporter  *reporter
	persisted uint64 // version of the membership in the data directory; reconcile's own
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
	met, err := n.handshake(ctx)
	if err != nil {
		return err
	}
	if err := n.bootstrap(ctx, met); err != nil {
		return err
	}
	n.uses = &uses{self: n.self.ID, log: n.log, serving: n.serving, membership: n.view.membership}
	n.keys = &keyring{master: n.master, log: n.log, keys: map[keyName]crypto.Key{}}
	if n.ingest, err = ingest.New(n.ingestOptions()); err != nil {
		return &RefusedError{
			Reason: err.Error(),
			hint:   cmp.Or(oserr.Hint(err, ""), "raise limits.staging_bytes or lower limits.uploads"),
		}
	}
	n.router = &router{
		self: n.self.ID, shards: n.shards, readiness: n.readiness, view: n.view, serving: n.serving, peers: n.peers,
	}
	n.images = read.New(n.readOptions())
	n.repair = repair.New(n.repairOptions())
	n.disk.store, n.disk.dir, n.disk.repair, n.disk.changed = n.store, n.dir.Load(), n.repair, n.peersChanged
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
	if _, err := n.handshake(ctx); err != nil {
		return err
	}
	n.wg.Go(func() { n.peers.Watch(n.ctx) })
	return n.startRaft(ctx)
}

// startRaft starts this node's replicas. Where the data directory turns out to have lost or damaged
// them, and the configuration allows it, the node gives up what it had and is rebuilt from its peers.
func (n *Node) startRaft(ctx context.Context) error {
	err := n.openRaft(ctx)
	if errors.Is(err, consensus.ErrDamaged) && n.cfg.Local.LostData == config.LostDataReplace &&
		n.admitted == nil {
		err = n.renew(ctx, err)
	}
	if err != nil {
		return err
	}
	n.view.reload()
	if err := n.sameIdentity(); err != nil {
		return err
	}
	if n.dir.Load().Identity().Unverified {
		n.disk.fail(errUnverified)
	}
	n.wg.Go(n.join)
	n.wg.Go(func() { n.view.watchRaft(n.ctx) })
	return nil
}

// openRaft starts consensus and this node's replicas.
func (n *Node) openRaft(ctx context.Context) error {
	if err := n.dir.Load().Update(func(id *store.Identity) { id.Joined = true }); err != nil {
		return err
	}
	c, err := consensus.Start(ctx, n.consensusOptions())
	if err != nil {
		return err
	}
	n.log.c.Store(c)
	return n.startShards(ctx, c)
}

// renew gives up what this node had of the log and the catalog, and has the others admit it again.
func (n *Node) renew(ctx context.Context, cause error) error {
	if c := n.log.c.Swap(nil); c != nil {
		c.Close() // it is given up anyway
	}
	met, err := n.handshake(ctx)
	if err == nil {
		err = n.countStart(ctx, met, nodeState{lost: cause.Error()})
	}
	if err != nil {
		return err
	}
	return n.openRaft(ctx)
}

// openDisk claims and opens the data directory.
func (n *Node) openDisk(clusterID string) error {
	path := n.cfg.DataDir(n.self.ID)
	dir, err := store.Claim(path, store.Identity{
		Cluster: n.cfg.Cluster.Name, ClusterID: clusterID,
		Node: n.self.ID, KeyID: n.master.ID(),
	})
	if err != nil {
		return err
	}
	n.dir.Store(dir)
	n.device = hostinfo.DiskOf(path)
	n.store, err = store.Open(path, store.Options{
		FreeBytesMin: int64(n.cfg.Limits.DiskFreeBytes), FreeInodesMin: int64(n.cfg.Limits.DiskFreeInodes),
		OnFailed:  n.disk.fail,
		OnUnknown: func(path string) { n.logger.Warn("unknown file among the images", zap.String("path", path)) },
	})
	if oserr.ClassOf(err) != oserr.None {
		return &RefusedError{Reason: fmt.Sprintf("data directory %s: %v", path, err), hint: hint(err)}
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
		func(m config.Node) bool { return claimed(cfg.DataDir(m.ID)) })
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
		Dir: c.DataDir(n.self.ID), DeploymentID: deploymentID(n.dir.Load().Identity().ClusterID),
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
		return // serveCurrent does it
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
	*Node
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
		Peers:  peerDoor{n, n.reporter, admin, held},
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
	err := n.propose()
	if err == nil {
		n.await(func() bool { return len(n.peers.Up()) >= len(n.view.membership().Members) })
		err = n.recover()
		n.await(n.view.peersServe)
	}
	switch {
	case n.ctx.Err() != nil:
	case err != nil:
		n.fail(err)
	default:
		n.readiness.ready.Store(true)
		n.repair.Start()
		n.wg.Go(n.reconcile)
		n.wg.Go(func() { n.disk.recover(n.ctx) })
		n.logger.Info("ready", zap.Duration("after", time.Since(n.began).Round(time.Millisecond)))
		(&sweeper{n.uses, n.store, n.cfg.Timeouts.Sweep, n.ingest.Leftover(), n.logger}).run(n.ctx)
	}
}

// propose puts the node's Join into the system shard's log, for as long as it takes to find a
// majority of the nodes.
func (n *Node) propose() error {
	j, err := n.introduce()
	if err != nil {
		return err
	}
	cmd := catalog.Command{Join: &j}
	for {
		r, err := n.log.Propose(n.ctx, systemShard, cmd)
		if err == nil {
			if err = r.Err(); err != nil {
				return &RefusedError{Reason: err.Error(), hint: hint(err)}
			}
			return nil
		}
		if n.ctx.Err() != nil {
			return n.ctx.Err()
		}
		n.logger.Warn("waiting for a majority of the nodes", zap.Error(err))
		n.askWhetherRemoved()
		if !wait.For(n.ctx, joinRetry) {
			return n.ctx.Err()
		}
	}
}

func hint(err error) string {
	if e := (*image.Error)(nil); errors.As(err, &e) {
		return e.Hint()
	}
	return ""
}

// peersGrace is how long a node that starts waits to see all others, and again for them to serve their
// shards, so that its first decisions count them in.
const peersGrace = 2 * time.Second

func (n *Node) await(ok func() bool) {
	deadline := time.Now().Add(peersGrace)
	for !ok() && time.Now().Before(deadline) {
		if !wait.For(n.ctx, 20*time.Millisecond) {
			return
		}
	}
}

// recover brings the shards of this node up to date here and takes up their pending uploads: first the
// system shard, for it says which the others are by now. What others have moved away meanwhile is given up.
func (n *Node) recover() error {
	c, asked := n.log.c.Load(), time.Now()
	for {
		if n.serveCurrent(c, systemShard); n.serving.has(systemShard) {
			n.reconcileOwn()
			if !slices.ContainsFunc(c.Hosted(), func(shard uint64) bool {
				return !n.serving.has(shard) && n.view.awaited(shard)
			}) {
				return nil
			}
		}
		if time.Since(asked) > reconcileEvery {
			n.askWhetherRemoved()
			asked = time.Now()
		}
		if !wait.For(n.ctx, n.cfg.Raft.RTT) {
			return n.ctx.Err()
		}
	}
}

// sameIdentity refuses to run where the data directory's cluster was founded with other settings.
func (n *Node) sameIdentity() error {
	j, err := n.introduce()
	if err != nil {
		return err
	}
	if m := n.view.membership(); m.Version > 0 && !bytes.Equal(m.Identity, j.Identity) {
		return &RefusedError{
			Reason: fmt.Sprintf("the cluster was founded with %s, the configuration says %s", m.Identity, j.Identity),
			hint:   "set cluster.name and cluster.data_shards back: they are fixed once data exists",
		}
	}
	return nil
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
	for _, c := range []io.Closer{closer(n.store), closer(n.dir.Load())} {
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
