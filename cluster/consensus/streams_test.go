package consensus

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
)

// TestOneConnectionToEachNode: dragonboat makes as many as its variable says, which is four unless it is set.
func TestOneConnectionToEachNode(t *testing.T) {
	c := newCluster(t, 3, 13, nil)
	c.startAll()
	c.expectBalanced()
	b, err := os.ReadFile("/proc/self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		port := netip.MustParseAddrPort(n.opts.RaftAddress).Port()
		accepted := 0
		for line := range strings.Lines(string(b)) { // number, local address, remote address, state, ...
			f := strings.Fields(line)
			if f[3] == "01" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
				accepted++
			}
		}
		if accepted != 2 {
			t.Errorf("node %d has %d connections of two nodes", n.opts.NodeID, accepted)
		}
	}
}
