package consensus

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"imgcluster/cluster/image"
	"imgcluster/cluster/witness"
)

// expectRefused expects that Start fails with a KindInvalid that is want, unless that is nil, and has a hint
// with hint. It returns the error.
func expectRefused(t *testing.T, o Options, want error, hint string) error {
	t.Helper()
	c, err := Start(context.Background(), o)
	if err == nil {
		c.Close()
		t.Fatal("started")
	}
	var e *image.Error
	if !errors.As(err, &e) || e.Kind != image.KindInvalid || want != nil && !errors.Is(err, want) ||
		!strings.Contains(e.Hint(), hint) {
		t.Errorf("%#v", err)
	}
	return err
}

// TestStartRefusesDirectory starts a node, and then others that do not fit its directory.
func TestStartRefusesDirectory(t *testing.T) {
	t.Parallel() // most of it is waiting
	c := newCluster(t, 1, 2, nil)
	c.startAll()
	good := c.nodes[0].opts
	expectRefused(t, good, nil, good.Dir+" is in use")
	c.propose(0, 1, "set a b")
	c.stop(0)

	for _, c := range []struct {
		change func(*Options)
		hint   string
	}{
		{func(o *Options) { o.RaftAddress = freeAddresses(t, 1)[0] }, "set it back"},
		{func(o *Options) { o.DeploymentID++ }, "cluster's name"},
		{func(o *Options) { o.NodeID = 2 }, "--id"},
	} {
		o := good
		c.change(&o)
		expectRefused(t, o, nil, c.hint)
	}

	l, err := net.ListenPacket("udp", good.RaftAddress)
	must(t, err)
	expectRefused(t, good, unix.EADDRINUSE, "another program")
	must(t, l.Close())

	c.start(0) // nothing was changed
	if got := c.read(0, 1, "a"); got != "b" {
		t.Errorf("read %q afterwards", got)
	}
	c.stop(0)
	aside := filepath.Join(t.TempDir(), "aside")
	for half, what := range map[string]string{"raft": "the Raft log", "catalog": "the catalog"} {
		must(t, os.Rename(filepath.Join(good.Dir, half), aside))
		var lost *witness.LostError
		if err := expectRefused(t, good, ErrDamaged, "replace this node"); !errors.As(err, &lost) ||
			lost.What != what {
			t.Errorf("%v, want that %s is lost", err, what)
		}
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
	expectRefused(t, c.nodes[0].opts, unix.EADDRNOTAVAIL, "not an address of this host")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	c = newCluster(t, 1, 1, nil)
	if _, err := Start(cancelled, c.nodes[0].opts); !errors.Is(err, context.Canceled) {
		t.Errorf("start with a cancelled context: %v", err)
	}
}
