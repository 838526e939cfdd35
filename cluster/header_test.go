package cluster_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/clustertest"
	"imgcluster/config"
)

// TestHeaderLimits: a header that is too long is refused, and one that takes too long ends its connection.
func TestHeaderLimits(t *testing.T) {
	const size = 8 << 10
	const slack = 4 << 10 // of net/http, which counts roughly
	const most = time.Second
	c := clustertest.Start(t, clustertest.Options{Nodes: 1, Change: func(c *config.Config) {
		c.Cluster.Replicas = 1
		c.Limits.HeaderBytes = size
		c.Timeouts.Header = most
		c.Timeouts.Idle = time.Hour
	}})
	begin := func(fields string) net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", c.Addr(1))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(conn, "GET /livez HTTP/1.1\r\nHost: %s\r\n%s", c.Addr(1), fields)
		return conn
	}
	for n, want := range map[int]int{
		size - 200:         http.StatusOK,
		size + slack + 200: http.StatusRequestHeaderFieldsTooLarge,
	} {
		resp, err := http.ReadResponse(bufio.NewReader(begin("X: "+strings.Repeat("x", n)+"\r\n\r\n")), nil)
		if err != nil || resp.StatusCode != want {
			t.Errorf("a header of %d bytes: %v, %v; want %d", n, resp, err, want)
		}
	}
	for _, again := range []bool{false, true} {
		conn := begin("")
		if again { // the second header of a connection is held to the same time
			fmt.Fprint(conn, "\r\n")
			if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(conn, "GET /livez HTTP/1.1\r\n")
		}
		began := time.Now()
		go func() { // a byte at a time is no way around it
			tick := time.NewTicker(most / 20)
			defer tick.Stop()
			for range tick.C {
				if _, err := fmt.Fprint(conn, "X"); err != nil {
					return
				}
			}
		}()
		answer, err := io.ReadAll(conn)
		if took := time.Since(began); took > 5*most || strings.Contains(string(answer), " 200 ") {
			t.Errorf("a header that does not end: %q, %v after %s", answer, err, took)
		}
	}
}
