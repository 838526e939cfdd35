// Package cluster assembles one node from the packages below it and shuts it down again. A start claims the
// data directory, exchanges hellos with the other nodes, joins the Raft groups and serves the API.
package cluster

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/access"
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
	"imgcluster/cluster/peerconn"
	"imgcluster/cluster/read"
	"imgcluster/cluster/repair"
	"imgcluster/cluster/store"
	"imgcluster/cluster/trace"
	"imgcluster/cluster/tracing"
	"imgcluster/cluster/watch"
	"imgcluster/cluster/wire"
	"imgcluster/config"
)

// Node is one running node.
type Node struct {
	cfg     *config.Config
	self    config.Node
	process Process
	logger  *zap.Logger
	began   time.Time
	shards  shardIDs
	master  *masterKeys
	// authority signs the certificates of nodes and administrators.
	authority   *access.Authority
	certificate *access.Files // the operator's, for clients; nil: there is none

	// What it holds open.
	dir      *store.DataDir
	device   hostinfo.Disk // of the data directory
	store    *store.Store
	log      *shardLogs
	listener net.Listener // of the API
	tls      *tls.Config  // of the API; nil: plain HTTP
	http     *connlimit.Server
	port     *peerconn.Port // of the other nodes
	peerHTTP *peerconn.Server
	own      peerconn.Credentials
	peers    *peer.Set

	// Its parts.
	starter    *bootstrap.Starter
	view       *view
	serving    *serving
	groups     *groups
	readiness  *readiness
	replicas   *replicas
	router     *router
	keys       *keyring
	accounts   *accounts
	removals   *removals
	references *references
	disk       *disk
	ingest     *ingest.Service
	images     *read.Images
	repair     *repair.Service
	reporter   *reporter
	metrics    *metrics
	imageLog   *imageLog
	slow       *slowLog
	tracing    *tracing.Exporter // nil: there is none
	watch      *watch.Hub
	handler    *api.Handler

	uploads, reads watch.Rates // those that this node owned and served

	leaderChanges atomic.Int64 // counts changes of leaders
	failed        chan error
	ctx           context.Context // ends with Close
	stop          context.CancelFunc
	wg            sync.WaitGroup
}

// Process is what a node gets from its process.
type Process struct {
	Version string
	Logger  *zap.Logger
	Level   zap.AtomicLevel // of Logger
	Runs    api.Runs        // for the dashboard; nil: there are none
}

// Start starts the node with this ID. It returns once the API answers. The node is ready for images later,
// when it has reached a majority of the nodes. The error is a *bootstrap.RefusedError, or a typed one of
// config, crypto or store, when the node may not run like this.
func Start(ctx context.Context, cfg *config.Config, id image.NodeID, process Process) (*Node, error) {
	logger := process.Logger
	self, err := cfg.Node(id)
	if err != nil {
		return nil, err
	}
	n := &Node{
		cfg:     cfg,
		self:    self,
		process: process,
		logger:  logger,
		began:   time.Now(),
		log:     &shardLogs{},
		shards:  dataShards(cfg.Cluster.DataShards),
		failed:  make(chan error, 1),
		disk:    newDisk(self.ID, cfg, logger),
	}
	n.serving = newServing(func() { n.handler.Notify() })
	n.view = newView(cfg, self.ID, n.log, n.serving, logger)
	n.readiness = newReadiness(cfg, self.ID, n.log, n.serving, n.disk, n.view.held)
	n.imageLog = newImageLog(imageLogOptions{
		self:      self.ID,
		live:      n.view.live,
		logger:    logger,
		perSecond: cfg.Log.ImagesPerSecond,
		cluster:   func() wire.ClusterStatus { return n.reporter.Cluster() },
	})
	n.slow = newSlowLog(cfg.Log.Slow, logger)
	n.ctx, n.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := n.start(ctx); err != nil {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Timeouts.Shutdown)
		defer cancel()
		return nil, errors.Join(err, n.Close(closing))
	}
	return n, nil
}

// Reload has the node read what may change while it runs: the operator's certificate.
func (n *Node) Reload() {
	if n.certificate != nil {
		n.certificate.Reload()
	}
}

// Failed returns a channel of the error that ends the node.
func (n *Node) Failed() <-chan error { return n.failed }

func (n *Node) start(ctx context.Context) error {
	var err error
	// What can be wrong is checked before the disk is touched, so that a refused first start leaves
	// nothing behind.
	if err := preflight(n.cfg, n.self.ID, n.logger); err != nil {
		return err
	}
	keys, err := loadMaster(ctx, n.cfg)
	if err != nil {
		return err
	}
	n.master = newMasterKeys(n.self.ID, keySource(n.cfg), keys, store.Peek(n.cfg.DataDir(n.self.ID)))
	n.master.log, n.master.view, n.master.timeout = n.log, n.view, n.cfg.Timeouts.Read
	n.master.logger = n.logger.Named("keys")
	n.view.updated = n.master.update
	if n.authority, err = access.NewAuthority(n.master.ring, n.cfg.Cluster.Name); err != nil {
		return err
	}
	if n.tls, err = n.clientTLS(); err != nil {
		return err
	}
	n.own = peerconn.Credentials{Authority: n.authority, Own: n.authority.Node(n.self.ID, n.self.Host)}
	var forPeers net.Listener
	if n.listener, forPeers, err = openPorts(n.ctx, n.cfg, n.self); err != nil {
		return err
	}
	n.port = peerconn.New(forPeers, n.own, n.logger.Named("peers"))
	warnUnreached(ctx, n.cfg, n.self, n.listener.Addr(), n.logger)
	n.peers = peer.New(n.peerOptions())
	n.view.peers, n.master.peers = n.peers, n.peers
	n.groups = &groups{self: n.self.ID, log: n.log, peers: n.peers, timeout: 2 * n.cfg.Timeouts.ProposalAttempt}
	n.peers.Update(addresses(n.view.membership()))
	n.starter = bootstrap.New(n.bootstrapOptions())
	if err := n.bootstrap(ctx); err != nil {
		return err
	}
	if err := n.assemble(); err != nil {
		return err
	}
	if n.cfg.Tracing.Endpoint != config.NoEndpoint {
		n.tracing = tracing.New(n.tracingOptions())
	}
	n.serve()
	// The handshake comes before Raft: a node of another cluster, or with an emptied disk, must not take
	// part in a single election. It is repeated now that this node answers too: of two that start at once
	// at least one sees the other.
	if _, err := n.starter.Handshake(ctx); err != nil {
		return err
	}
	n.wg.Go(func() { n.peers.Watch(n.ctx) })
	return n.startRaft(ctx)
}

// assemble makes the parts of the node that need its store.
func (n *Node) assemble() (err error) {
	n.references = &references{
		self:       n.self.ID,
		log:        n.log,
		serving:    n.serving,
		membership: n.view.membership,
		uploads:    func(f image.FileID) bool { return n.ingest.Uses(f) },
	}
	n.keys = newKeyring(n.master.ring, n.log, n.view.reload, func() bool { return n.serving.has(systemShard) })
	sealer, err := access.NewSealer(n.master.ring)
	if err != nil {
		return err
	}
	n.master.sealer = sealer
	n.removals = newRemovals(n.self.ID, n.log, n.view, n.serving, n.logger.Named("removals"))
	n.accounts = newAccounts(n.log, n.keys, sealer, n.cfg.Timeouts.Read, n.logger.Named("access"))
	n.accounts.changed = n.removals.kick
	if n.ingest, err = ingest.New(n.ingestOptions()); err != nil {
		hint := cmp.Or(oserr.Hint(err, ""), "raise limits.staging_bytes or lower limits.uploads")
		return bootstrap.Refuse(hint, "%v", err)
	}
	n.router = &router{
		self:      n.self.ID,
		shards:    n.shards,
		readiness: n.readiness,
		view:      n.view,
		serving:   n.serving,
		peers:     n.peers,
	}
	n.images = read.New(n.readOptions())
	n.repair = repair.New(n.repairOptions())
	n.disk.store, n.disk.dir, n.disk.repair, n.disk.changed = n.store, n.dir, n.repair, n.peersChanged
	n.wg.Go(func() { n.disk.watchRoom(n.ctx, n.cfg.Timeouts.PeerInterval) })
	n.reporter = n.newReporter()
	n.watch = watch.New(n.reporter.Cluster)
	n.metrics = (&metrics{
		self:    n.self.ID,
		cluster: n.reporter.Cluster,
		repair:  n.repair,
		log:     n.log,
		refused: func(reason access.Reason) int64 { return n.handler.Refused(reason) },
		logger:  n.logger,
	}).register()
	n.replicas = &replicas{
		self:          n.self.ID,
		starter:       n.starter,
		log:           n.log,
		view:          n.view,
		groups:        n.groups,
		serving:       n.serving,
		peers:         n.peers,
		ingest:        n.ingest,
		repair:        n.repair,
		accounts:      n.accounts,
		retry:         n.cfg.Raft.RTT / 2,
		leaderChanges: &n.leaderChanges,
		fail:          n.fail,
		logger:        n.logger,
	}
	return nil
}

// startRaft starts this node's replicas. Where the data directory turns out to have lost or damaged
// them, and the configuration allows it, the node gives up what it had and is rebuilt from its peers.
func (n *Node) startRaft(ctx context.Context) error {
	err := n.openRaft(ctx)
	allowed := n.cfg.Local.LostData == config.LostDataReplace && !n.view.admitted
	if errors.Is(err, consensus.ErrDamaged) && allowed {
		err = n.rebuild(ctx, err)
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
	n.wg.Go(func() { n.master.run(n.ctx) })
	n.wg.Go(func() { n.view.watchRaft(n.ctx) })
	n.wg.Go(func() { returnMemory(n.ctx) })
	n.wg.Go(func() { n.watch.Run(n.ctx) })
	return nil
}

// openRaft starts consensus and this node's replicas.
func (n *Node) openRaft(ctx context.Context) error {
	options, err := n.consensusOptions()
	if err != nil {
		return err
	}
	if err := n.dir.Update(func(id *store.Identity) { id.Joined = true }); err != nil {
		return err
	}
	c, err := consensus.Start(ctx, options)
	if err != nil {
		return err
	}
	n.log.c.Store(c)
	return n.replicas.start(ctx, c)
}

// rebuild discards this node's Raft log and catalog, and has its peers admit it again.
func (n *Node) rebuild(ctx context.Context, cause error) error {
	if c := n.log.c.Swap(nil); c != nil {
		c.Close() // its files are moved away
	}
	m, err := n.starter.Rebuild(ctx, cause)
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
	n.master.claimed(n.dir)
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
		FreeBytesMin:  int64(n.cfg.Limits.DiskFreeBytes),
		FreeInodesMin: int64(n.cfg.Limits.DiskFreeInodes),
		OnFailed:      n.disk.fail,
		OnUnknown: func(path string) {
			n.logger.Warn("unknown file among the images", zap.String("path", path))
		},
	})
	if oserr.ClassOf(err) != oserr.None {
		return bootstrap.Refuse(image.HintOf(err), "data directory %s: %v", path, err)
	}
	return err
}

// peersChanged re-examines pending uploads and missing copies after a peer came up or went down.
func (n *Node) peersChanged() {
	n.ingest.Kick()
	n.repair.Kick()
}

// applied takes the events of a shard from consensus.
func (n *Node) applied(shard, index uint64, events []catalog.Event) {
	n.accounts.apply(events)
	for _, e := range events {
		if e.Members != nil {
			n.view.update(e.Members)
		}
		if e.Rewrap != nil {
			n.repair.Kick()
		}
		if user := e.ImagesOf(); user != "" {
			n.watch.Changed(user)
		}
	}
	if shard != systemShard {
		n.ingest.Applied(shard, index, events)
	}
}

// ended takes an upload or a read that has ended on this node.
func (n *Node) ended(op trace.Op, r *trace.Request, o api.Outcome) {
	if o.Err == nil {
		n.metrics.observe(op, r)
		if op == trace.Read {
			n.reads.Add(o.Bytes, time.Since(r.Began))
		}
	}
	n.slow.add(op, r, o)
}

// restored reloads what this node keeps of a shard whose state came as a snapshot.
func (n *Node) restored(shard, index uint64) {
	switch {
	case shard != systemShard:
		n.ingest.Restored(shard, index)
	case n.serving.has(shard): // else replicas.serve does it
		n.accounts.reload() // at once: keys may have been removed
		n.wg.Go(n.view.reload)
	}
}

// mail sends what this node has to say of an upload to another one.
func (n *Node) mail(to image.NodeID, m ingest.Message) {
	b, err := json.Marshal(m)
	if err != nil {
		n.logger.DPanic("message not encoded", zap.Error(err))
		return
	}
	n.peers.Mail(to, b)
}

// message takes what another node has to say of an upload.
func (n *Node) message(from image.NodeID, b []byte) {
	var m ingest.Message
	if err := json.Unmarshal(b, &m); err != nil {
		n.logger.Warn("unreadable message of a peer", zap.Uint32("peer", uint32(from)), zap.Error(err),
			zap.String("hint", "run the same imgcluster version on every node"))
		return
	}
	n.ingest.Take(from, m)
}

func (n *Node) leaderChanged(shard uint64, leader image.NodeID, term uint64) {
	n.logger.Debug("leader changed", zap.Uint64("shard", shard), zap.Uint32("leader", uint32(leader)),
		zap.Uint64("term", term))
	n.leaderChanges.Add(1)
	n.removals.kick()
	n.ingest.Kick()
	n.view.kick()
}

// connectionsReserve are connections above limits.connections, for probes and the status.
const connectionsReserve = 64

// reservePerAddress is how many of these one address may have.
const reservePerAddress = 16

// newServer returns a server of one of the ports.
func (n *Node) newServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: n.cfg.Timeouts.Header,
		IdleTimeout:       n.cfg.Timeouts.Idle,
		MaxHeaderBytes:    int(n.cfg.Limits.HeaderBytes),
		ErrorLog:          newHTTPLog(n.logger.Named("http")),
		BaseContext:       func(net.Listener) context.Context { return n.ctx },
	}
}

// servePeers answers the other nodes from now on. What clients do takes none of their connections.
func (n *Node) servePeers() {
	limits := n.cfg.Limits
	perPeer := limits.Connections + limits.Uploads + limits.Reads + connectionsReserve
	n.peerHTTP = n.port.Serve(n.newServer(n.handler.ForPeers()), perPeer)
	n.port.Start()
}

// serve answers on both ports from now on.
func (n *Node) serve() {
	n.handler = api.New(n.apiOptions())
	n.master.notify = n.handler.Notify
	n.servePeers()
	n.http = connlimit.New(n.newServer(n.handler), connlimit.Options{
		Max:               n.cfg.Limits.Connections,
		PerAddress:        n.cfg.Limits.ConnectionsPerAddress,
		Reserve:           connectionsReserve,
		ReservePerAddress: reservePerAddress,
		Class:             api.ConnectionClass,
		Refuse:            http.HandlerFunc(n.handler.RefuseConnection),
		Logger:            n.logger.Named("http"),
		TLS:               n.tls,
	})
	n.wg.Go(func() {
		if err := n.http.Serve(n.listener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			n.fail(fmt.Errorf("API of node %d: %w", n.self.ID, err))
		}
	})
	on := zap.Skip()
	if n.cfg.Local.Listen != config.NodeHost {
		on = zap.Stringer("on", n.listener.Addr())
	}
	n.logger.Info("API listens", zap.String("address", n.self.APIAddr()), on)
}

// fail ends the node: whoever runs it closes it.
func (n *Node) fail(err error) {
	n.readiness.failed.Store(true)
	select {
	case n.failed <- err:
	default:
	}
}

// join joins the cluster, recovers what an earlier process left, and makes the node ready.
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
		n.wg.Go(func() { n.removals.run(n.ctx) })
		n.wg.Go(func() { n.disk.recover(n.ctx) })
		n.logger.Info("ready", zap.Duration("after", time.Since(n.began).Round(time.Millisecond)))
		(&sweeper{
			references: n.references,
			store:      n.store,
			every:      n.cfg.Timeouts.Sweep,
			leftover:   n.ingest.Leftover(),
			restored:   n.dir.Identity().RestoredAt,
			logger:     n.logger,
		}).run(n.ctx)
	}
}

// Close stops the node: it takes no new uploads, finishes the running ones until ctx is done, then takes no
// requests, hands leadership over, and closes Raft, the store and the data directory. It may be called after
// a failed start.
func (n *Node) Close(ctx context.Context) error {
	n.readiness.shuttingDown.Store(true)
	var errs []error
	if n.http != nil {
		n.handler.Notify()
		n.ingest.Drain(ctx)
		n.handler.Shutdown() // from here on peers send to other nodes
		errs = append(errs, n.http.Shutdown(ctx), n.peerHTTP.Shutdown(ctx))
	} else if n.listener != nil {
		errs = append(errs, n.listener.Close())
	}
	n.stop()
	if n.ingest != nil {
		errs = append(errs, n.ingest.Close())
	}
	n.tracing.Close(ctx)
	n.imageLog.logDropped()
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
	if n.port != nil {
		errs = append(errs, n.port.Close())
	}
	for _, c := range []io.Closer{closer(n.store), closer(n.dir)} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	err := errors.Join(errs...)
	if n.keys != nil && err == nil { // else something may be using them yet
		n.keys.zero()
		n.master.zero()
	}
	return err
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
