package consensus

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/image"
)

// expectRefused checks that Start fails with a KindInvalid that says want and has a hint with hint.
func expectRefused(t *testing.T, o Options, want, hint string) {
	t.Helper()
	c, err := Start(context.Background(), o)
	if err == nil {
		c.Close()
		t.Fatal("started")
	}
	var e *image.Error
	if !errors.As(err, &e) || e.Kind != image.KindInvalid || !strings.Contains(e.Detail, want) ||
		!strings.Contains(e.Hint(), hint) {
		t.Errorf("%#v", err)
	}
}

func TestStartRefusesOptions(t *testing.T) {
	apply := toyApply
	one := map[image.NodeID]string{1: "127.0.0.1:1"}
	good := Options{
		NodeID: 1, RaftAddress: "127.0.0.1:1", Dir: "x", Shards: []Shard{{ID: 1, Members: one, Apply: apply}},
	}
	for want, change := range map[string]func(*Options){
		"node ID":           func(o *Options) { o.NodeID = 0 },
		"data directory":    func(o *Options) { o.Dir = "" },
		"not host:port":     func(o *Options) { o.RaftAddress = "nowhere" },
		"to listen on":      func(o *Options) { o.Listen = "127.0.0.1" },
		"below 1 ms":        func(o *Options) { o.RTT = time.Microsecond },
		"ElectionRTT":       func(o *Options) { o.ElectionRTT = 2 },
		"ProposalAttempt":   func(o *Options) { o.ProposalTimeout = time.Millisecond },
		"RebalanceEvery":    func(o *Options) { o.RebalanceEvery = -1 },
		"shard ID 0":        func(o *Options) { o.Shards = []Shard{{Members: one, Apply: apply}} },
		"shard 1 is listed": func(o *Options) { o.Shards = append(o.Shards, o.Shards[0]) },
		"no Apply":          func(o *Options) { o.Shards = []Shard{{ID: 1, Members: one}} },
		"this node's": func(o *Options) {
			o.Shards = []Shard{{ID: 1, Members: map[image.NodeID]string{2: "127.0.0.1:1"}, Apply: apply}}
		},
	} {
		o := good
		change(&o)
		expectRefused(t, o, want, "correct")
	}
	all := Options{RTT: time.Microsecond}
	expectRefused(t, all, "data directory", "correct")
	expectRefused(t, all, "node ID", "correct")
}

// TestStartRefusesDirectory starts a node, and then others that do not fit its directory.
func TestStartRefusesDirectory(t *testing.T) {
	t.Parallel() // most of it is waiting
	c := newCluster(t, 1, 2, nil)
	c.startAll()
	good := c.nodes[0].opts
	expectRefused(t, good, "lock", "stop the other process")
	c.propose(0, 1, "set a b")
	c.stop(0)

	// with returns other options for the same directory; address and shards go together.
	with := func(address string, shards int, change func(*Options)) Options {
		o := good
		o.RaftAddress = address
		o.Shards = nil
		for s := range shards {
			o.Shards = append(o.Shards,
				Shard{ID: uint64(s + 1), Members: map[image.NodeID]string{1: address}, Apply: toyApply})
		}
		change(&o)
		return o
	}
	expectRefused(t, with(freeAddresses(t, 1)[0], 2, func(*Options) {}), "Raft address", "set it back")
	deployment := with(good.RaftAddress, 2, func(o *Options) { o.DeploymentID++ })
	expectRefused(t, deployment, "deployment", "cluster's name")
	expectRefused(t, with(good.RaftAddress, 2, func(o *Options) {
		o.NodeID = 2
		for _, s := range o.Shards {
			s.Members[2] = good.RaftAddress
		}
	}), "node 1", "--id")

	l, err := net.Listen("tcp", good.RaftAddress)
	must(t, err)
	expectRefused(t, good, "address already in use", "another program")
	must(t, l.Close())

	c.start(0) // nothing was changed
	if got := c.read(0, 1, "a"); got != "b" {
		t.Errorf("read %q afterwards", got)
	}
	c.stop(0)
	aside := filepath.Join(t.TempDir(), "aside")
	for half, words := range map[string]string{"raft": "the Raft log", "catalog": "the catalog"} {
		must(t, os.Rename(filepath.Join(good.Dir, half), aside))
		expectRefused(t, good, words, "replace this node")
		must(t, os.RemoveAll(filepath.Join(good.Dir, half)))
		must(t, os.Rename(aside, filepath.Join(good.Dir, half)))
	}
	c.start(0)
	if got := c.read(0, 1, "a"); got != "b" {
		t.Errorf("read %q after the halves are back", got)
	}
}

func TestStartRefusesForeignAddress(t *testing.T) {
	t.Parallel() // most of it is waiting
	c := newCluster(t, 1, 1, func(o *Options) {
		o.RaftAddress = "192.0.2.1:9" // a documentation address: no host has it
		o.Shards[0].Members[1] = o.RaftAddress
	})
	expectRefused(t, c.nodes[0].opts, "assign requested address", "not an address of this host")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	c = newCluster(t, 1, 1, nil)
	if _, err := Start(cancelled, c.nodes[0].opts); !errors.Is(err, context.Canceled) {
		t.Errorf("start with a cancelled context: %v", err)
	}
}
