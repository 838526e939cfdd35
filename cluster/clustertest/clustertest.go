// Package clustertest runs whole clusters for tests, without fakes: nodes in this process, or nodes that are
// processes of their own (the test binary run again), which signals can kill and stop. It also has what many
// tests of clusters need: handmade requests, images with a marker in them, faults of networks and disks, and
// the invariants that must hold after a fault.
//
// The test binary must call Main from TestMain.
package clustertest

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"imgcluster/cluster"
	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest/poll"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/config"
	"imgcluster/crypto"
)

// Deadline limits every wait. It is long because tests of speed do not use it.
const Deadline = time.Minute

// Poll waits until ok holds, and fails the test after Deadline.
func Poll(t testing.TB, what string, ok func() bool) {
	t.Helper()
	poll.Until(t, Deadline, what, ok)
}

// idlePerHost is how many idle connections Cluster.HTTP keeps to each node.
const idlePerHost = 8

func newHTTP(secure *tls.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: idlePerHost, DisableCompression: true, TLSClientConfig: secure,
	}}
}

// Options of a cluster. The zero value is three nodes in this process.
type Options struct {
	Nodes     int                  // number; 0: three
	Processes bool                 // every node is a process of its own
	Network   *Network             // the processes run on its hosts; nil: on the loopback address
	Dir       string               // for its data; empty: a folder of the test
	Program   string               // of the processes; empty: this test's own program
	Secured   bool                 // TLS and access keys on the loopback address, as they are on a Network
	Change    func(*config.Config) // edits the configuration; may be nil
	Log       zapcore.Core         // of the nodes in this process; nil: see logger
}

// Cluster is a cluster of a test. Its methods are for the test's own goroutine, except those that only send
// requests, such as Do and Put.
type Cluster struct {
	Config *config.Config
	HTTP   *http.Client

	t         testing.TB
	dir       string
	processes bool
	network   *Network
	program   string
	log       zapcore.Core
	nodes     map[image.NodeID]*cluster.Node
	procs     map[image.NodeID]*process
}

// New makes a cluster without starting its nodes. Running nodes are stopped when t ends.
func New(t testing.TB, o Options) *Cluster {
	t.Helper()
	c := &Cluster{
		t:         t,
		dir:       o.Dir,
		processes: o.Processes || o.Network != nil,
		network:   o.Network,
		program:   o.Program,
		log:       o.Log,
		nodes:     map[image.NodeID]*cluster.Node{},
		procs:     map[image.NodeID]*process{},
		HTTP:      newHTTP(nil),
	}
	if c.dir == "" {
		c.dir = t.TempDir()
	}
	c.Config = quick(t, c.dir, cmp.Or(o.Nodes, 3))
	c.Config.Security.Always = o.Secured
	if o.Change != nil {
		o.Change(c.Config)
	}
	if err := c.Config.Check(); err != nil {
		t.Fatal(err)
	}
	transport := c.HTTP.Transport.(*http.Transport)
	if o.Network != nil {
		transport.DialContext = o.Network.dialOwn
		// Nodes make a key on the loopback address only.
		if _, err := crypto.LoadOrCreateMasterKey(c.Config.Local.MasterKeyFile); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if transport.TLSClientConfig, err = clientTLS(c.Config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

// Start makes a cluster and waits until all its nodes serve images.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	c := New(t, o)
	c.StartAll()
	return c
}

// quick returns a configuration of nodes with short timeouts and small limits.
func quick(t testing.TB, dir string, nodes int) *config.Config {
	t.Helper()
	cfg := config.Default()
	cfg.Cluster.Nodes = newNodes(t, 1, nodes)
	cfg.Cluster.Name = "clustertest"
	cfg.Cluster.DataShards = 3
	cfg.Local.DataDir = filepath.Join(dir, "node{id}")
	cfg.Local.MasterKeyFile = filepath.Join(dir, "keys", "master.key")
	cfg.Limits.StagingBytes = 96 << 20
	cfg.Limits.Uploads = 32
	cfg.Limits.DiskFreeBytes = 0
	cfg.Limits.DiskFreeInodes = 0
	cfg.Limits.ImageBytes = 8 << 20
	cfg.Raft.RTT = slowdown * 60 * time.Millisecond
	cfg.Raft.Rebalance = 200 * time.Millisecond
	cfg.Timeouts.PeerInterval = 100 * time.Millisecond
	cfg.Timeouts.DiskRetry = 100 * time.Millisecond
	cfg.Timeouts.Takeover = 2 * time.Second
	cfg.Timeouts.Upload = slowdown * 10 * time.Second
	cfg.Timeouts.Proposal = slowdown * 3 * time.Second
	cfg.Timeouts.Read = slowdown * 2 * time.Second
	cfg.Repair.Every = 200 * time.Millisecond
	cfg.Repair.Delay = time.Hour
	cfg.Repair.ScrubEvery = time.Hour
	return cfg
}

// newNodes returns n nodes on free ports, with IDs from first.
func newNodes(t testing.TB, first image.NodeID, n int) []config.Node {
	t.Helper()
	ports := FreePorts(t, 2*n)
	nodes := make([]config.Node, n)
	for i := range nodes {
		nodes[i] = config.Node{
			ID: first + image.NodeID(i), Host: "127.0.0.1", APIPort: ports[2*i], RaftPort: ports[2*i+1],
		}
	}
	return nodes
}

// Grow adds a new node to the configuration and returns it. The caller adds it to the cluster.
func (c *Cluster) Grow() config.Node {
	c.t.Helper()
	n := newNodes(c.t, c.IDs()[len(c.IDs())-1]+1, 1)[0]
	cfg := *c.Config // running nodes have the old one
	cfg.Cluster.Nodes = append(slices.Clone(cfg.Cluster.Nodes), n)
	c.Config = &cfg
	return n
}

// Shrink removes a node from the configuration, after its removal from the cluster.
func (c *Cluster) Shrink(id image.NodeID) {
	cfg := *c.Config
	removed := func(n config.Node) bool { return n.ID == id }
	cfg.Cluster.Nodes = slices.DeleteFunc(slices.Clone(cfg.Cluster.Nodes), removed)
	c.Config = &cfg
}

// FreePorts returns n free ports of the loopback address. They are below the range of ports of outgoing
// connections, so that a node gets its port again after a restart.
func FreePorts(t testing.TB, n int) []int {
	t.Helper()
	ports, err := config.FreePorts(n)
	if err != nil {
		t.Fatal(err)
	}
	return ports
}

// logger returns a logger to standard error with the level that IMGCLUSTER_TEST_LOG names, by default none.
func logger(id image.NodeID) *zap.Logger {
	level, err := zapcore.ParseLevel(os.Getenv("IMGCLUSTER_TEST_LOG"))
	if err != nil || os.Getenv("IMGCLUSTER_TEST_LOG") == "" {
		return zap.NewNop()
	}
	enc := zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig())
	return zap.New(zapcore.NewCore(enc, zapcore.Lock(os.Stderr), level)).With(zap.Uint32("node", uint32(id)))
}

// IDs returns the IDs of the configured nodes.
func (c *Cluster) IDs() []image.NodeID {
	var ids []image.NodeID
	for _, n := range c.Config.Cluster.Nodes {
		ids = append(ids, n.ID)
	}
	return ids
}

// Others returns the IDs of the configured nodes without the given ones.
func (c *Cluster) Others(but ...image.NodeID) []image.NodeID {
	return slices.DeleteFunc(c.IDs(), func(id image.NodeID) bool { return slices.Contains(but, id) })
}

// Addr returns the API address of a node, host:port.
func (c *Cluster) Addr(id image.NodeID) string {
	n, err := c.Config.Node(id)
	if err != nil {
		c.t.Fatal(err)
	}
	return n.APIAddr()
}

// host returns the IP address of a node.
func (c *Cluster) host(id image.NodeID) netip.Addr {
	addr, err := netip.ParseAddrPort(c.Addr(id))
	if err != nil {
		c.t.Fatal(err)
	}
	return addr.Addr()
}

// Node returns a node that runs in this process.
func (c *Cluster) Node(id image.NodeID) *cluster.Node { return c.nodes[id] }

// Process returns what the process of a test gives a node. The level is that of no logger.
func Process(log *zap.Logger) cluster.Process {
	return cluster.Process{Version: "test", Logger: log, Level: zap.NewAtomicLevel()}
}

// TryStart starts a node in this process, and returns the error when it does not start.
func (c *Cluster) TryStart(cfg *config.Config, id image.NodeID) error {
	ctx, cancel := context.WithTimeout(context.Background(), Deadline)
	defer cancel()
	log := logger(id)
	if c.log != nil {
		log = zap.New(c.log).With(zap.Uint32("node", uint32(id)))
	}
	n, err := cluster.Start(ctx, cfg, id, Process(log))
	if err != nil {
		return err
	}
	c.nodes[id] = n
	return nil
}

// Start starts nodes, without waiting until they are ready.
func (c *Cluster) Start(ids ...image.NodeID) {
	c.t.Helper()
	for _, id := range ids {
		if c.processes {
			c.spawn(id)
			continue
		}
		if err := c.TryStart(c.Config, id); err != nil {
			c.t.Fatalf("start node %d: %v", id, err)
		}
	}
}

// StartAll starts all nodes and waits until they are Ready.
func (c *Cluster) StartAll() {
	c.t.Helper()
	c.Start(c.IDs()...)
	c.WaitReady(c.IDs()...)
}

// Stop shuts nodes down gracefully.
func (c *Cluster) Stop(ids ...image.NodeID) {
	c.t.Helper()
	for _, id := range ids {
		if err := c.stop(id); err != nil {
			c.t.Errorf("stop node %d: %v", id, err)
		}
	}
}

func (c *Cluster) stop(id image.NodeID) error {
	if p := c.procs[id]; p != nil {
		delete(c.procs, id)
		return p.stop()
	}
	n := c.nodes[id]
	if n == nil {
		return nil
	}
	delete(c.nodes, id)
	ctx, cancel := context.WithTimeout(context.Background(), c.Config.Timeouts.Shutdown)
	defer cancel()
	return n.Close(ctx)
}

// Restart stops all the nodes, then starts them, and waits until all running nodes are Ready.
func (c *Cluster) Restart(ids ...image.NodeID) {
	c.t.Helper()
	c.Stop(ids...)
	c.Start(ids...)
	c.WaitReady(c.running()...)
}

func (c *Cluster) running() []image.NodeID {
	var ids []image.NodeID
	for _, id := range c.IDs() {
		if c.nodes[id] != nil || c.procs[id] != nil {
			ids = append(ids, id)
		}
	}
	return ids
}

func (c *Cluster) close() {
	c.HTTP.CloseIdleConnections()
	for _, id := range c.running() {
		if err := c.stop(id); err != nil {
			c.t.Errorf("stop node %d: %v", id, err)
		}
	}
}

// WaitReady waits until the given nodes are Ready.
func (c *Cluster) WaitReady(ids ...image.NodeID) {
	c.t.Helper()
	Poll(c.t, fmt.Sprintf("nodes %v ready", ids), func() bool { return c.Ready(ids...) })
}

// Ready reports whether the given nodes serve images and each sees the others up.
func (c *Cluster) Ready(ids ...image.NodeID) bool {
	for _, id := range ids {
		if c.Do(http.MethodGet, id, "/readyz", nil, nil).Status != http.StatusOK {
			return false
		}
		s := c.Status(id)
		for _, n := range s.Nodes {
			if slices.Contains(ids, n.ID) && (n.State != wire.NodeUp || !n.Ready) {
				return false
			}
		}
	}
	return true
}

// Client returns a client of all nodes, closed when the test ends.
func (c *Cluster) Client(t testing.TB, d client.Delivery) *client.Client {
	t.Helper()
	tls, err := clientTLS(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	o := client.Options{
		Delivery: d, Attempts: 100, BackoffMax: 500 * time.Millisecond, StragglerTimeout: time.Second, TLS: tls,
	}
	for _, n := range c.Config.Cluster.Nodes {
		o.Nodes = append(o.Nodes, client.Node{ID: n.ID, Addr: n.APIAddr()})
	}
	cl, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}
