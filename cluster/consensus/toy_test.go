package consensus

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/access"
	"imgcluster/cluster/catalog"
	"imgcluster/cluster/clustertest/poll"
	"imgcluster/cluster/image"
	"imgcluster/cluster/peerconn"
	"imgcluster/config"
	"imgcluster/crypto"
)

// deadline bounds every wait of the tests. It is long because no test measures speed with it.
const deadline = 2 * time.Minute

// until polls until ok holds and fails the test after deadline.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	poll.Until(t, deadline, what, ok)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// toyApply is a state machine of words: "set K V", "del K", "add K" counts up, "half K" changes two
// keys and panics, "big K" writes a value beyond the limit. Its event is a removed record
// named "K@index".
func toyApply(tx catalog.Tx, index uint64, cmd []byte) (result []byte, events []catalog.Event) {
	f := strings.Fields(string(cmd))
	key := []byte(f[1])
	switch f[0] {
	case "set":
		tx.Set(key, []byte(f[2]))
		result = []byte("was set")
	case "del":
		tx.Delete(key)
	case "add":
		old, _ := tx.Get(key)
		n, _ := strconv.Atoi(string(old))
		result = strconv.AppendInt(nil, int64(n+1), 10)
		tx.Set(key, result)
	case "half":
		tx.Set(key, []byte("half"))
		tx.Delete([]byte("kept"))
		panic("half a command")
	case "big":
		tx.Set(key, make([]byte, valueBytesMax+1))
	}
	return result, []catalog.Event{{Removed: &image.Record{Name: fmt.Sprintf("%s@%d", key, index)}}}
}

// namesOf returns the events of toyApply as "K@index".
func namesOf(events []catalog.Event) []string {
	var names []string
	for _, e := range events {
		names = append(names, e.Removed.Name)
	}
	return names
}

// dump returns all that a reader shows.
func dump(t testing.TB, r catalog.Reader) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, r.Scan(nil, nil, func(k, v []byte) bool { all[string(k)] = string(v); return true }))
	return all
}

// node is one node of a test cluster, with the events that it got.
type node struct {
	opts   Options
	shards []Shard // to start with
	*Consensus

	mu       sync.Mutex
	events   map[uint64][]string // names of removed records
	restored map[uint64]int
}

// testMasterKey is the line of a master key that was made for tests: processes of one test share it.
const testMasterKey = "imgcluster-master-key-v1 dd59aaed7bc449db IeCf6/S+Z6ZSgit6+dEaQUefYj4XWmp2OGB4CmBRLfI="

// sealerOf returns a Sealer, the same for the same name.
func sealerOf(name string) *crypto.Sealer {
	master, err := crypto.MasterKeyFromEnv(testMasterKey)
	if err != nil {
		panic(err)
	}
	s, err := master.Sealer(name)
	if err != nil {
		panic(err)
	}
	return s
}

// testOptions returns the options of a node, with what a test need not care about.
// Its port, which listens on the address, is open until it is closed.
func testOptions(id image.NodeID, address, dir string) Options {
	port, own := openPort(id, address)
	return Options{
		Port:               port,
		Credentials:        own,
		Address:            func(image.NodeID) string { return "" },
		Members:            func() map[image.NodeID]string { return nil },
		NodeID:             id,
		RaftAddress:        address,
		Listen:             address,
		Dir:                dir,
		DeploymentID:       7,
		Disk:               sealerOf("disk of " + strconv.Itoa(int(id))),
		Snapshots:          sealerOf("snapshots"),
		Applied:            func(uint64, uint64, []catalog.Event) {},
		Restored:           func(uint64, uint64) {},
		LeaderChanged:      func(uint64, image.NodeID, uint64) {},
		Live:               func() []image.NodeID { return []image.NodeID{1, 2, 3, 4} },
		Candidates:         func() []Candidates { return nil },
		RTT:                20 * time.Millisecond,
		ElectionRTT:        10,
		HeartbeatRTT:       1,
		SnapshotEntries:    20_000,
		CompactionOverhead: 10_000,
		RebalanceEvery:     100 * time.Millisecond,
		ProposalAttempt:    400 * time.Millisecond,
		ProposalTimeout:    deadline,
		Logger:             zap.NewNop(),
	}
}

// openPort opens a node's port.
func openPort(id image.NodeID, address string) (*peerconn.Port, peerconn.Credentials) {
	key := "imgcluster-master-key-v1 f5fac8af2578f500 t07xfydFS4K+p5aN+DoOfwMzq1jI34v53IKaZ6+7L+U="
	master, err := crypto.MasterKeyFromEnv(key)
	if err != nil {
		panic(err)
	}
	a, err := access.NewAuthority(master, "test")
	if err != nil {
		panic(err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		panic(err)
	}
	own := peerconn.Credentials{Authority: a, Own: a.Node(id, "127.0.0.1")}
	port := peerconn.New(l, own, zap.NewNop())
	port.Start()
	return port, own
}

// startNode starts a node and its shards.
func startNode(o Options, shards []Shard) (*Consensus, error) {
	c, err := Start(context.Background(), o)
	if err != nil {
		return nil, err
	}
	for _, s := range shards {
		if err := c.StartShard(s); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// toyCluster is n nodes on loopback ports.
type toyCluster struct {
	t     testing.TB
	nodes []*node
}

// freeAddresses returns loopback addresses that nobody listens on.
func freeAddresses(t testing.TB, n int) []string {
	t.Helper()
	ports, err := config.FreePorts(n)
	must(t, err)
	addresses := make([]string, n)
	for i, port := range ports {
		addresses[i] = fmt.Sprintf("127.0.0.1:%d", port)
	}
	return addresses
}

// newCluster makes n nodes with the shards 1 to shards; change, which may be nil, edits the options.
func newCluster(t testing.TB, n, shards int, change func(*Options)) *toyCluster {
	t.Helper()
	c := &toyCluster{t: t}
	addresses := freeAddresses(t, n)
	all := map[image.NodeID]string{}
	for i, a := range addresses {
		all[image.NodeID(i+1)] = a
	}
	for i := range n {
		nd := &node{events: map[uint64][]string{}, restored: map[uint64]int{}}
		nd.opts = testOptions(image.NodeID(i+1), addresses[i], t.TempDir())
		port := nd.opts.Port
		t.Cleanup(func() { port.Close() })
		nd.opts.Address = func(id image.NodeID) string { return all[id] }
		nd.opts.Members = func() map[image.NodeID]string { return all }
		nd.opts.Candidates = func() []Candidates { return rotated(nd.shards) }
		nd.opts.Applied = func(shard, _ uint64, events []catalog.Event) {
			nd.mu.Lock()
			defer nd.mu.Unlock()
			nd.events[shard] = append(nd.events[shard], namesOf(events)...)
		}
		nd.opts.Restored = func(shard, _ uint64) {
			nd.mu.Lock()
			defer nd.mu.Unlock()
			nd.restored[shard]++
		}
		for s := range shards {
			nd.shards = append(nd.shards, Shard{ID: uint64(s + 1), Members: maps.Clone(all), Apply: toyApply})
		}
		if change != nil {
			change(&nd.opts)
		}
		c.nodes = append(c.nodes, nd)
	}
	t.Cleanup(c.stopAll)
	return c
}

// startAll starts every node and waits for all leaders.
func (c *toyCluster) startAll() {
	c.t.Helper()
	for i := range c.nodes {
		c.start(i)
	}
	for _, n := range c.nodes {
		until(c.t, "all shards have a leader", n.Ready)
	}
}

func (c *toyCluster) start(i int) {
	c.t.Helper()
	n := c.nodes[i]
	running, err := startNode(n.opts, n.shards)
	must(c.t, err)
	n.Consensus = running
}

func (c *toyCluster) stop(i int) {
	c.t.Helper()
	running := c.nodes[i].Consensus
	if running == nil {
		return
	}
	c.nodes[i].Consensus = nil
	if err := running.Close(); err != nil {
		c.t.Errorf("close of node %d: %v", i+1, err)
	}
}

// stopAll stops all at once, as when a whole cluster is shut down.
func (c *toyCluster) stopAll() {
	var all sync.WaitGroup
	for i := range c.nodes {
		all.Go(func() { c.stop(i) })
	}
	all.Wait()
}

func (c *toyCluster) propose(i int, shard uint64, cmd string) string {
	c.t.Helper()
	b, err := c.nodes[i].Propose(context.Background(), shard, []byte(cmd))
	if err != nil {
		c.t.Fatalf("%q by node %d: %v", cmd, i+1, err)
	}
	return string(b)
}

// state returns a digest of a shard as node i has it now.
func (c *toyCluster) state(i int, shard uint64) string {
	c.t.Helper()
	sum := sha256.New()
	must(c.t, c.nodes[i].View(shard, func(r catalog.Reader) error {
		return r.Scan(nil, nil, func(k, v []byte) bool {
			fmt.Fprintf(sum, "%d %s %d %s\n", len(k), k, len(v), v)
			return true
		})
	}))
	return hex.EncodeToString(sum.Sum(nil))
}

// expectRestored waits until node i has been told that a snapshot has replaced its state of a shard: that
// comes after readers see the state.
func (c *toyCluster) expectRestored(i int, shard uint64) {
	c.t.Helper()
	n := c.nodes[i]
	until(c.t, fmt.Sprintf("node %d takes a snapshot of shard %d", i+1, shard), func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.restored[shard] > 0
	})
}

// expectSameEverywhere waits until all running nodes have the same state of every shard.
func (c *toyCluster) expectSameEverywhere() {
	c.t.Helper()
	for _, s := range c.nodes[0].shards {
		until(c.t, fmt.Sprintf("shard %d is the same everywhere", s.ID), func() bool {
			var states []string
			for i, n := range c.nodes {
				if n.Consensus != nil {
					states = append(states, c.state(i, s.ID))
				}
			}
			return len(slices.Compact(states)) == 1
		})
	}
}

// expectBalanced waits until each running node sees the leaders that the plan gives, and returns how many
// each has.
func (c *toyCluster) expectBalanced() map[image.NodeID]int {
	c.t.Helper()
	live := map[image.NodeID]bool{}
	for _, n := range c.nodes {
		live[n.opts.NodeID] = n.Consensus != nil
	}
	want := plan(rotated(c.nodes[0].shards), live)
	for _, n := range c.nodes {
		if n.Consensus == nil {
			continue
		}
		until(c.t, fmt.Sprintf("node %d sees the planned leaders", n.opts.NodeID), func() bool {
			for shard, leader := range want {
				if l, _, _ := n.Leader(shard); l != leader {
					return false
				}
			}
			return true
		})
	}
	counts := map[image.NodeID]int{}
	for _, leader := range want {
		counts[leader]++
	}
	return counts
}

// read returns a value by a linearizable read.
func (c *toyCluster) read(i int, shard uint64, key string) (value string) {
	c.t.Helper()
	must(c.t, c.nodes[i].Read(context.Background(), shard, func(r catalog.Reader) error {
		v, err := r.Get([]byte(key))
		value = string(bytes.Clone(v))
		return err
	}))
	return value
}
