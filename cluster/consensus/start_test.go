package consensus

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

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

// TestStartRefusesDirectory starts a node, and then others that do not fit its directory.
func TestStartRefusesDirectory(t *testing.T) {
	t.Parallel() // most of it is waiting
	c := newCluster(t, 1, 2, nil)
	c.startAll()
	good := c.nodes[0].opts
	expectRefused(t, good, "lock", "stop the other process")
	c.propose(0, 1, "set a b")
	c.stop(0)

	for _, c := range []struct {
		change      func(*Options)
		words, hint string
	}{
		{func(o *Options) { o.RaftAddress = freeAddresses(t, 1)[0] }, "Raft address", "set it back"},
		{func(o *Options) { o.DeploymentID++ }, "deployment", "cluster's name"},
		{func(o *Options) { o.NodeID = 2 }, "node 1", "--id"},
	} {
		o := good
		c.change(&o)
		expectRefused(t, o, c.words, c.hint)
	}

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
		o.Listen = o.RaftAddress
	})
	expectRefused(t, c.nodes[0].opts, "assign requested address", "not an address of this host")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	c = newCluster(t, 1, 1, nil)
	if _, err := Start(cancelled, c.nodes[0].opts); !errors.Is(err, context.Canceled) {
		t.Errorf("start with a cancelled context: %v", err)
	}
}
