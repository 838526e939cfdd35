// Package consensus runs this node's part of the Raft groups: the host, the state machines and who leads. It
// keeps the replicated state of all shards in one database: a command goes in with Propose, the shard's Apply
// changes the state on every node, readers see it with Read or View, and Applied gets the catalog's events.
//
// What a command means is up to Apply (of package catalog), and what follows from it up to Applied. Messages
// to other nodes go through package raftnet, the only other user of dragonboat; what is durable in the
// database and in Raft's log is compared at each start with what package witness has of it.
package consensus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/config"
	"go.uber.org/zap"

	"imgcluster/cluster/raftnet"
	"imgcluster/cluster/witness"
)

// Limits on what waits in memory, in bytes.
const (
	// CommandBytesMax is the size of a command. Records are below 4 KiB.
	CommandBytesMax = 256 << 10

	shardLogBytesMax = 8 << 20  // a shard's commands not applied yet; beyond that Propose waits
	peerQueueBytes   = 32 << 20 // messages to or from one node
)

// logShards and execShards are fixed once a data directory exists. One of each lets the commands of
// several shards share an fsync, which takes less time and less CPU than four do on a small host.
const (
	logShards   = 1
	execShards  = 1
	otherShards = 4 // workers of each other kind; these may change
)

// Consensus is a running node. Its methods are safe to call from many goroutines.
type Consensus struct {
	opts      Options
	log       *zap.Logger
	witness   *witness.Witness
	db        *database
	host      *dragonboat.NodeHost
	transport *raftnet.Transport
	counters  counters

	compactions compactions

	mu     sync.RWMutex
	shards map[uint64]*running // by ID

	calls   gate            // of the host
	ctx     context.Context // ends when the host is about to close
	cancel  context.CancelFunc
	balance sync.WaitGroup
	stop    context.CancelFunc // ends the balancer

	closing sync.Once
	closed  error
}

// Start opens the data directory, making it on the first start; see StartShard. ctx bounds the start, not the
// life of the node.
//
// A configuration that does not fit the directory, a directory or port in use and the like are
// KindInvalid with a hint.
func Start(ctx context.Context, opts Options) (*Consensus, error) {
	setLogger(opts.Logger)
	alive, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &Consensus{
		opts: opts, log: opts.Logger.Named("consensus"), shards: map[uint64]*running{},
		ctx: alive, cancel: cancel,
	}
	if err := c.start(ctx); err != nil {
		cancel()
		return nil, startError(errors.Join(err, c.closeParts(false)), &opts)
	}
	balancing, stop := context.WithCancel(alive)
	c.stop = stop
	c.balance.Go(func() { c.keepBalanced(balancing) })
	return c, nil
}

// start brings up the database and the host; the caller closes what is up when it fails.
func (c *Consensus) start(ctx context.Context) (err error) {
	raftDir, catalogDir := filepath.Join(c.opts.Dir, "raft"), filepath.Join(c.opts.Dir, "catalog")
	if err := os.MkdirAll(c.opts.Dir, 0o700); err != nil {
		return err
	}
	if c.witness, err = witness.Open(c.opts.Dir); err != nil {
		return witnessError(err)
	}
	if err := os.MkdirAll(catalogDir, 0o700); err != nil {
		return err
	}
	if c.db, err = openDatabase(c.witness.FS(defaultFS), catalogDir, &c.opts, c.log); err != nil {
		return err
	}
	if err := c.db.claim(identityOf(&c.opts), raftDir); err != nil {
		return err
	}
	if err := os.MkdirAll(raftDir, 0o700); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := c.newHost(raftDir); err != nil {
		return err
	}
	return c.db.started()
}

// newHost starts dragonboat, which panics on some failures instead of returning them.
func (c *Consensus) newHost(dir string) (err error) {
	factory := raftnet.Factory{Options: raftnet.Options{
		Port: c.opts.Port, Credentials: c.opts.Credentials, Cluster: groups{c}, Logger: c.log,
	}}
	logs := logDBs{w: c.witness, sealer: c.opts.Disk, dir: c.opts.Dir, compactions: &c.compactions}
	c.host, err = startHost(dir, &c.opts, &logs, &factory, (*listener)(c))
	c.transport = factory.Transport
	return err
}

// startHost starts a host of dragonboat.
func startHost(
	dir string, o *Options, logs *logDBs, transport config.TransportFactory, l *listener,
) (host *dragonboat.NodeHost, err error) {
	logDB := config.GetTinyMemLogDBConfig()
	logDB.Shards = logShards
	defer func() {
		if logs.failed != nil {
			err = logs.failed // dragonboat may panic on its way out, or return nothing
		}
	}()
	defer recovered(&err)
	host, err = dragonboat.NewNodeHost(config.NodeHostConfig{
		DeploymentID:        o.DeploymentID,
		NodeHostDir:         dir,
		RTTMillisecond:      uint64(o.RTT.Milliseconds()),
		RaftAddress:         o.RaftAddress,
		ListenAddress:       o.Listen,
		EnableMetrics:       true,
		RaftEventListener:   l,
		SystemEventListener: l,
		MaxSendQueueSize:    peerQueueBytes,
		MaxReceiveQueueSize: peerQueueBytes,
		// MutualTLS is not set, for it does nothing here: only the library's own transport reads it. raftnet is
		// given connections that are mutual TLS already, and looks at each message besides.
		Expert: config.ExpertConfig{
			LogDB:            logDB,
			LogDBFactory:     logs,
			TransportFactory: transport,
			Engine: config.EngineConfig{
				ExecShards: execShards, CommitShards: otherShards, ApplyShards: otherShards,
				SnapshotShards: otherShards, CloseShards: otherShards,
			},
		},
	})
	if err == nil && host == nil { // it swallows the panics of its own checks, which are texts
		err = damaged(fmt.Errorf("a file in %s does not pass its checksum", dir))
	}
	return host, err
}

// recovered turns a panic of dragonboat into an error. It panics when what it reads does not pass its
// checks, and when the operating system refuses something.
func recovered(err *error) {
	switch p := recover().(type) {
	case nil:
	case runtime.Error: // what it stumbles over after something else, or a mistake in it
		*err = fmt.Errorf("dragonboat: %w", p)
	case error:
		*err = damaged(p)
	default:
		*err = damaged(fmt.Errorf("dragonboat: %v", p))
	}
}

// Close hands the shards that this node leads to others, waiting at most handoverTimeout, and stops the
// node. What is proposed or read meanwhile fails with KindNoQuorum. A second call returns what the first did.
func (c *Consensus) Close() error {
	c.closing.Do(func() {
		c.calls.close()  // first: no new work; what is under way may still finish during the handover
		c.stop()         // then the balancer, which would take shards back
		c.balance.Wait() //
		c.handOver()     // while the host still runs
		c.cancel()       // ends what is still under way,
		c.calls.wait()   // since nobody may be inside the host
		c.closed = c.closeParts(true)
	})
	return c.closed
}

// closeParts stops the host before the database: until it stopped, shards apply commands. After an
// orderly stop the witness is sealed.
func (c *Consensus) closeParts(orderly bool) (err error) {
	if c.host != nil {
		err = closeHost(c.host)
	}
	if c.db != nil {
		err = errors.Join(err, c.db.close())
	}
	return errors.Join(err, c.witness.Close(orderly && err == nil))
}

func closeHost(h *dragonboat.NodeHost) (err error) {
	defer recovered(&err)
	h.Close()
	return nil
}
