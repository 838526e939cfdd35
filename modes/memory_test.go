package modes

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/clustertest/poll"
	"imgcluster/config"
	"imgcluster/genimg"
	"imgcluster/modes/local"
)

// memoryMargin is how far a node's resident memory may exceed limits.memory_bytes: for the program
// itself, what Raft's log and the catalog have outside of the Go heap, and what the kernel has not taken
// back yet. OPERATIONS.md states it.
const memoryMargin = 64 << 20

// TestMemoryOfSlowClients measures a node's resident memory while stalled uploads fill its memory for
// images and many slow clients read images. It stays within its limit and the margin, and other requests
// are served. With more clients and the default settings: make slow.
func TestMemoryOfSlowClients(t *testing.T) {
	readers := 600
	side := 1900 // pixels, of an image of 7 MB
	set := []string{
		"limits.uploads=16",
		"limits.reads=256",
		"limits.staging_bytes=16MiB",
		"limits.memory_bytes=80MiB",
		"limits.image_bytes=8MiB",
	}
	if n, _ := strconv.Atoi(os.Getenv("SLOW_CLIENTS")); n > 0 {
		readers = n
		set = []string{"limits.key_reads=512", "limits.key_uploads=256"} // the clients are of one address
		side = 3500
	}
	set = append(set, "limits.connections_per_address=1024", "cluster.data_shards=2", "log.level=error")
	cfg, l := startDemo(t, set...)
	image := func(name string) string {
		return "http://" + cfg.Cluster.Nodes[0].APIAddr() + "/v1/images/slow/" + name
	}
	spec := genimg.Default(1)
	spec.MinPixels = side
	spec.MaxPixels = side
	one := spec.Image(1)
	body := one.AppendTo(nil)
	for name := range 4 {
		if status := send(t, image(strconv.Itoa(name)), body); status != http.StatusCreated {
			t.Fatalf("an upload to an idle node: status %d", status)
		}
	}
	var peak int64
	watch := func(until string, ok func() bool) {
		t.Helper()
		poll.Until(t, waitMax, until, func() bool {
			peak = max(peak, residentBytes(t, l.Nodes()[0].PID()))
			return ok()
		})
	}
	addr := cfg.Cluster.Nodes[0].APIAddr()
	uploads := cfg.Limits.Uploads
	for i := range uploads { // each stalls after its share of the memory
		conn := slowConn(t, addr)
		fmt.Fprintf(conn, "PUT /v1/images/slow/part%d HTTP/1.1\r\nHost: localhost\r\n", i)
		fmt.Fprintf(conn, "Content-Length: %d\r\n\r\n", len(body))
		go conn.Write(body[:int(cfg.Limits.StagingBytes)/uploads])
	}
	begun := make(chan int, readers)
	for i := range readers {
		conn := slowConn(t, addr)
		fmt.Fprintf(conn, "GET /v1/images/slow/%d HTTP/1.1\r\nHost: localhost\r\n\r\n", i%4)
		go func() {
			status := make([]byte, len("HTTP/1.1 200"))
			io.ReadFull(conn, status) // a closed connection counts as refused
			code, _ := strconv.Atoi(string(bytes.TrimSpace(status[9:])))
			begun <- code
		}()
	}
	answered := map[int]int{}
	watch("all readers to be answered", func() bool {
		for len(begun) > 0 {
			answered[<-begun]++
		}
		return answered[http.StatusOK]+answered[http.StatusTooManyRequests]+answered[0] == readers
	})
	if want := min(readers, cfg.Limits.Reads); answered[http.StatusOK] < want-want/20 {
		t.Errorf("answers by status %v, want %d times 200", answered, want)
	}
	limit := int64(cfg.Limits.MemoryBytes) + memoryMargin
	t.Logf("answers by status %v; resident memory at most %d MiB, limit %d MiB", answered, peak>>20, limit>>20)
	if peak > limit {
		t.Errorf("resident memory of %d MiB, more than limits.memory_bytes and %d MiB", peak>>20, memoryMargin>>20)
	}
	expectProbes(t, addr)
}

// expectProbes expects that a node answers probes and shows the cluster.
func expectProbes(t *testing.T, addr string) {
	t.Helper()
	for _, probe := range []string{"/livez", "/readyz", "/v1/cluster"} {
		resp, err := http.Get("http://" + addr + probe)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", probe, resp.Status)
		}
	}
}

// demoConfigured returns a configuration of three nodes with all data in dir, and the env of a silent command
// with it.
func demoConfigured(tb testing.TB, dir string, set ...string) (*env, *config.Config) {
	tb.Helper()
	e := &env{out: &output{w: io.Discard}, err: io.Discard, quiet: true, set: set}
	path, err := e.demoConfig(dir)
	if err != nil {
		tb.Fatal(err)
	}
	e.path = path
	cfg, err := config.Load(config.Options{Path: path})
	if err != nil {
		tb.Fatal(err)
	}
	return e, cfg
}

// startDemo starts three nodes of the program as users have it, which takes less memory than one with tests,
// until the test ends.
func startDemo(t *testing.T, set ...string) (*config.Config, *local.Cluster) {
	t.Helper()
	e, cfg := demoConfigured(t, t.TempDir(), set...)
	l, err := local.Start(t.Context(), e.localOptions(cfg, built(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return cfg, l
}

// slowConn returns a connection with a small receive buffer, open until the test ends.
func slowConn(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.(*net.TCPConn).SetReadBuffer(16 << 10); err != nil {
		t.Fatal(err)
	}
	return conn
}

func send(t *testing.T, url string, body []byte) (status int) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPut, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// residentBytes returns the resident memory of a process.
func residentBytes(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
