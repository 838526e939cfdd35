package cluster_test

import (
	"io"
	"net"
	"os"
	"testing"

	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
)

// TestOtherVersion starts a node where another program answers on another one's port. The start is refused
// with the reason, and leaves nothing behind.
func TestOtherVersion(t *testing.T) {
	c := clustertest.New(t, clustertest.Options{})
	answering(t, c.Config.Cluster.Nodes[0].RaftAddr(), "220 mail.example.org ESMTP\r\n")
	expectRefused(t, c.TryStart(c.Config, 2), nil, c.Config.Cluster.Nodes[0].RaftAddr(), "another version")
	if _, err := os.Stat(c.Config.DataDir(2)); !os.IsNotExist(err) {
		t.Errorf("a data directory was made: %v", err)
	}
}

// TestForwarderOfANodeThatIsDown: a port that closes connections, as a forwarder does whose node is down,
// keeps no node from its start.
func TestForwarderOfANodeThatIsDown(t *testing.T) {
	c := clustertest.New(t, clustertest.Options{})
	answering(t, c.Config.Cluster.Nodes[0].RaftAddr(), "")
	for _, id := range []image.NodeID{2, 3} {
		if err := c.TryStart(c.Config, id); err != nil {
			t.Fatal(err)
		}
	}
	c.WaitReady(2, 3)
}

// answering takes connections on an address, answers the first bytes on each with a greeting, and closes it.
func answering(t *testing.T, address, greeting string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			io.ReadFull(conn, make([]byte, 16))
			io.WriteString(conn, greeting)
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
}
