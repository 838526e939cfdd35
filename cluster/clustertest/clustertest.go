// Package clustertest runs whole clusters for tests, with the real parts only: nodes in this
// process, or nodes that are processes of their own (the test binary run again), which a signal can
// kill or stop for real. Beside starting and stopping it has what tests ask of a cluster again and
// again: requests by hand, images with a marker in them, and the invariants that hold after a fault.
//
// The test binary must call Main from TestMain.
package clustertest

import (
	"cmp"
	"context"
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

// Deadline bounds every wait. It is long because it says nothing about speed.
const Deadline = time.Minute

// Poll waits until ok holds, and fails the test after Deadline.
func Poll(t testing.TB, what string, ok func() bool) {
	t.Helper()
	poll.Until(t, Deadline, what, ok)
}

// Options of a cluster. The zero value is three nodes in this process.
type Options struct {
	Nodes     int                  // how many; 0: three
	Processes bool                 // every node is a process of its own
	Network   *Network             // whose hosts the processes run at; nil: the loopback address
	Dir       string               // where its data goes; empty: a folder of the test
	Program   string               // what the processes run; empty: this test's own program
	Change    func(*config.Config) // edits the configuration; may be nil
	Log       zapcore.Core         // where nodes in this process log to; nil: see logger
}

// Cluster is a cluster of a test. Its methods are for the test's own goroutine, but for Do, Put, Get
// and what else only sends requests.
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

// New makes a cluster of which no node runs yet. Whatever runs is stopped when t ends.
func New(t testing.TB, o Options) *Cluster {
	t.Helper()
	c := &Cluster{
		t: t, dir: o.Dir, processes: o.Processes || o.Network != nil, network: o.Network, program: o.Program, log: o.Log,
		nodes: map[image.NodeID]*cluster.Node{}, procs: map[image.NodeID]*process{},
		HTTP: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8, DisableCompression: true}},
	}
	if c.dir == "" {
		c.dir = t.TempDir()
	}
	c.Config = quick(t, c.dir, cmp.Or(o.Nodes, 3))
	if o.Change != nil {
		o.Change(c.Config)
	}
	if err := c.Config.Check(); err != nil {
		t.Fatal(err)
	}
	if o.Network != nil {
		c.HTTP.Transport.(*http.Transport).DialContext = o.Network.dialOwn
		if _, err := crypto.LoadOrCreateMasterKey(c.Config.Local.MasterKeyFile); err != nil { // nodes make it on loopback only
			t.Fatal(err)
		}
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

// quick is a configuration of some nodes with short times and little of everything.
func quick(t testing.TB, dir string, nodes int) *config.Config {
	t.Helper()
	cfg := config.Default()
	cfg.Cluster.Nodes = newNodes(t, 1, nodes)
	cfg.Cluster.Name = "clustertest"
	cfg.Cluster.DataShards = 3
	cfg.Local.DataDir = filepath.Join(dir, "node{id}")
	cfg.Local.MasterKeyFile = filepath.Join(dir, "keys", "master.key")
	cfg.Limits.StagingBytes, cfg.Limits.Uploads, cfg.Limits.DiskFreeBytes = 96<<20, 32, 0
	cfg.Limits.DiskFreeInodes = 0
	cfg.Limits.ImageBytes = 8 << 20
	cfg.Raft.RTT, cfg.Raft.Rebalance = 30*time.Millisecond, 200*time.Millisecond
	cfg.Timeouts.PeerInterval, cfg.Timeouts.DiskRetry = 100*time.Millisecond, 100*time.Millisecond
	cfg.Timeouts.Takeover, cfg.Timeouts.Upload = 2*time.Second, 10*time.Second
	cfg.Timeouts.Proposal, cfg.Timeouts.Read = 3*time.Second, 2*time.Second
	cfg.Repair.Every, cfg.Repair.Delay, cfg.Repair.ScrubEvery = 200*time.Millisecond, time.Hour, time.Hour
	return cfg
}

// newNodes are n nodes on free ports, from the ID first.
func newNodes(t testing.TB, first image.NodeID, n int) []config.Node {
	t.Helper()
	ports := FreePorts(t, 2*n)
	nodes := make([]config.Node, n)
	for i := range nodes {
		nodes[i] = config.Node{ID: first + image.NodeID(i), Host: "127.0.0.1", APIPort: ports[2*i], RaftPort: ports[2*i+1]}
	}
	return nodes
}

// Grow lists a new node in the configuration, which the cluster is then to be told of, and returns it.
func (c *Cluster) Grow() config.Node {
	c.t.Helper()
	n := newNodes(c.t, c.IDs()[len(c.IDs())-1]+1, 1)[0]
	cfg := *c.Config // nodes that run have the old one
	cfg.Cluster.Nodes = append(slices.Clone(cfg.Cluster.Nodes), n)
	c.Config = &cfg
	return n
}

// Shrink forgets a node that was removed from the cluster.
func (c *Cluster) Shrink(id image.NodeID) {
	cfg := *c.Config
	cfg.Cluster.Nodes = slices.DeleteFunc(slices.Clone(cfg.Cluster.Nodes), func(n config.Node) bool { return n.ID == id })
	c.Config = &cfg
}

// FreePorts finds n ports of the loopback address that nobody listens on. They lie below the range
// that outgoing connections take theirs from, so that a node finds its port again after a stop.
func FreePorts(t testing.TB, n int) []int {
	t.Helper()
	ports, err := config.FreePorts(n)
	if err != nil {
		t.Fatal(err)
	}
	return ports
}

// logger writes warnings to the standard error of the tests when IMGCLUSTER_TEST_LOG names a level.
func logger(id image.NodeID) *zap.Logger {
	level, err := zapcore.ParseLevel(os.Getenv("IMGCLUSTER_TEST_LOG"))
	if err != nil || os.Getenv("IMGCLUSTER_TEST_LOG") == "" {
		return zap.NewNop()
	}
	enc := zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig())
	return zap.New(zapcore.NewCore(enc, zapcore.Lock(os.Stderr), level)).With(zap.Uint32("node", uint32(id)))
}

// IDs lists the nodes of the configuration.
func (c *Cluster) IDs() []image.NodeID {
	var ids []image.NodeID
	for _, n := range c.Config.Cluster.Nodes {
		ids = append(ids, n.ID)
	}
	return ids
}

// Others lists the nodes but the given ones.
func (c *Cluster) Others(but ...image.NodeID) []image.NodeID {
	return slices.DeleteFunc(c.IDs(), func(id image.NodeID) bool { return slices.Contains(but, id) })
}

// Addr is the API address of a node, host:port.
func (c *Cluster) Addr(id image.NodeID) string {
	n, err := c.Config.Node(id)
	if err != nil {
		c.t.Fatal(err)
	}
	return n.APIAddr()
}

// host is the IP address of a node.
func (c *Cluster) host(id image.NodeID) netip.Addr {
	addr, err := netip.ParseAddrPort(c.Addr(id))
	if err != nil {
		c.t.Fatal(err)
	}
	return addr.Addr()
}

// Node returns a node that runs in this process.
func (c *Cluster) Node(id image.NodeID) *cluster.Node { return c.nodes[id] }

// TryStart starts a node in this process and returns why it does not.
func (c *Cluster) TryStart(cfg *config.Config, id image.NodeID) error {
	ctx, cancel := context.WithTimeout(context.Background(), Deadline)
	defer cancel()
	log := logger(id)
	if c.log != nil {
		log = zap.New(c.log).With(zap.Uint32("node", uint32(id)))
	}
	n, err := cluster.Start(ctx, cfg, id, "test", log)
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

// StartAll starts all nodes and waits until they serve images and see each other.
func (c *Cluster) StartAll() {
	c.t.Helper()
	c.Start(c.IDs()...)
	c.WaitReady(c.IDs()...)
}

// Stop ends nodes in the orderly way.
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

// Restart stops nodes, all before the first starts again, and waits until they serve.
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

// WaitReady waits until the given nodes serve images and each sees the others up.
func (c *Cluster) WaitReady(ids ...image.NodeID) {
	c.t.Helper()
	Poll(c.t, fmt.Sprintf("nodes %v ready", ids), func() bool { return c.Ready(ids...) })
}

// Ready tells whether the given nodes serve images and each sees the others up.
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
	o := client.Options{Delivery: d, Attempts: 100, BackoffMax: 500 * time.Millisecond, StragglerTimeout: time.Second}
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
