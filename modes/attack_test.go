package modes

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imgcluster/cluster/clustertest/poll"
	"imgcluster/genimg"
)

// attack is how many connections of each kind there are in TestAttack, and what goes on meanwhile.
type attack struct {
	idle, slowUploads, slowReads int
	uploads                      int // whose latency is measured
}

// TestAttack measures uploads, and each node's resident memory, beside idle connections, uploads that trickle
// and reads that take nothing, each kind from addresses of its own. Uploads and probes succeed, and memory
// stays within its limit; latencies are reported, not judged. In full: make slow.
func TestAttack(t *testing.T) {
	a := attack{idle: 600, slowUploads: 100, slowReads: 60, uploads: 24}
	side := 500
	if n, _ := strconv.Atoi(os.Getenv("SLOW_CLIENTS")); n > 0 {
		a = attack{idle: 10_000, slowUploads: 1000, slowReads: n, uploads: 200}
		side = 1800
	}
	cfg, l := startDemo(t, "cluster.data_shards=3", "log.level=error")
	addr := cfg.Cluster.Nodes[0].APIAddr()
	spec := genimg.Default(1)
	spec.MinPixels, spec.MaxPixels = side, side
	body := spec.Image(1).AppendTo(nil)
	var refused atomic.Int64 // normal uploads, which are sent again
	measure := func(name string) (p50, p99 time.Duration) {
		t.Helper()
		took := make([]time.Duration, a.uploads)
		for i := range took {
			began := time.Now()
			url := fmt.Sprintf("http://%s/v1/images/normal/%s-%d.png", addr, name, i)
			poll.Until(t, waitMax, "a normal upload to be stored", func() bool {
				if !stored(url, body) {
					refused.Add(1)
					return false
				}
				return true
			})
			took[i] = time.Since(began)
		}
		slices.Sort(took)
		return took[len(took)/2], took[len(took)*99/100]
	}
	measure("first")
	alone50, alone99 := measure("alone")

	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	var begun, cut atomic.Int64
	const again = 5 * time.Second
	client := func(kind, i int, request string, then func(net.Conn)) {
		wg.Go(func() {
			from := &net.TCPAddr{IP: net.IPv4(127, byte(kind), byte(1+i/200), byte(1+i%40))}
			d := net.Dialer{LocalAddr: from, Timeout: 10 * time.Second}
			for first := true; ctx.Err() == nil; first = false {
				conn, err := d.DialContext(ctx, "tcp", addr)
				if first {
					begun.Add(1)
				}
				if err == nil {
					end := context.AfterFunc(ctx, func() { conn.Close() })
					io.WriteString(conn, request)
					then(conn)
					end()
					conn.Close()
					cut.Add(1)
				}
				select {
				case <-ctx.Done():
				case <-time.After(again): // more than the second that Retry-After asks for
				}
			}
		})
	}
	wait := func(conn net.Conn) { io.Copy(io.Discard, conn) }
	for i := range a.idle {
		client(1, i, "", wait)
	}
	for i := range a.slowUploads {
		request := fmt.Sprintf("PUT /v1/images/slow/%d.png HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n",
			i, addr, len(body))
		client(2, i, request, func(conn net.Conn) {
			go func() {
				tick := time.NewTicker(time.Second)
				defer tick.Stop()
				for range tick.C {
					if _, err := conn.Write([]byte{1}); err != nil {
						return
					}
				}
			}()
			wait(conn)
		})
	}
	for i := range a.slowReads {
		request := fmt.Sprintf("GET /v1/images/normal/alone-%d.png HTTP/1.1\r\nHost: %s\r\n\r\n", i%a.uploads, addr)
		client(3, i, request, func(conn net.Conn) {
			conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			<-ctx.Done()
		})
	}
	poll.Until(t, waitMax, "the attack to be under way", func() bool {
		return int(begun.Load()) == a.idle+a.slowUploads+a.slowReads
	})
	peak := make([]int64, len(l.Nodes()))
	wg.Go(func() {
		for ctx.Err() == nil {
			for i, n := range l.Nodes() {
				peak[i] = max(peak[i], residentBytes(t, n.PID()))
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	under50, under99 := measure("attacked")
	expectProbes(t, addr)
	stop()
	wg.Wait()
	t.Logf("%d idle connections, %d slow uploads, %d slow reads, %d connections cut or refused, %d "+
		"normal uploads sent again: uploads of %d bytes take %s (p99 %s), %s (p99 %s) without the others; "+
		"resident memory at most %d MiB", a.idle, a.slowUploads, a.slowReads, cut.Load(), refused.Load(), len(body),
		under50, under99, alone50, alone99, mib(peak))
	for i, n := range peak {
		if limit := int64(cfg.Limits.MemoryBytes) + memoryMargin; n > limit {
			t.Errorf("node %d has %d MiB of resident memory, more than %d MiB", i+1, n>>20, limit>>20)
		}
	}
}

// stored sends an image and reports whether it is acknowledged.
func stored(url string, body []byte) bool {
	req, err := http.NewRequest(http.MethodPut, url, bytes.NewReader(body))
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusCreated
}

func mib(list []int64) (out []int64) {
	for _, n := range list {
		out = append(out, n>>20)
	}
	return out
}
