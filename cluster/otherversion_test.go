package cluster_test

import (
	"io"
	"net"
	"os"
	"testing"

	"imgcluster/cluster/clustertest"
)

// TestOtherVersion starts a node where another one's port is answered by a version that knew no TLS, which
// ends a connection that does not begin as its own do, or by another program. The start is refused with the
// reason, and leaves nothing behind.
func TestOtherVersion(t *testing.T) {
	for name, greeting := range map[string]string{
		"an older version": "", "another program": "220 mail.example.org ESMTP\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := clustertest.New(t, clustertest.Options{})
			l, err := net.Listen("tcp", c.Config.Cluster.Nodes[0].RaftAddr())
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
					io.ReadFull(conn, make([]byte, 16)) // a header, whose checksum is wrong
					io.WriteString(conn, greeting)
					conn.Close()
				}
			}()
			defer func() {
				l.Close()
				<-done
			}()
			expectRefused(t, c.TryStart(c.Config, 2), nil, c.Config.Cluster.Nodes[0].RaftAddr(), "older version")
			if _, err := os.Stat(c.Config.DataDir(2)); !os.IsNotExist(err) {
				t.Errorf("a data directory was made: %v", err)
			}
		})
	}
}
