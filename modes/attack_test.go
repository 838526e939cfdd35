package modes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"imgcluster/cluster/clustertest/poll"
	"imgcluster/genimg"
	"imgcluster/modes/local"
)

// attack is how many connections of each kind there are against one address. Uploads send a byte a second,
// reads take one. Who is cut off comes back after 2.5 to 7.5 seconds.
type attack struct {
	Name                         string
	Idle, SlowUploads, SlowReads int
	OneAddress                   bool // all are of the address of the normal client, else of hundreds of others
	Addr                         string
	Bytes                        int      // of an upload
	Images                       []string // that are read
}

// attackEnv makes this test binary an attacker, as it says in JSON, until its standard input ends. It prints
// a line when all have begun, and at its end how many connections were cut or refused.
const attackEnv = "TEST_BINARY_IS_ATTACKER"

// TestAttack measures uploads, and each node's resident memory, with and without idle connections, uploads
// that trickle and reads that take next to nothing, in turn. Uploads and probes succeed, and memory stays
// within its limit; latencies are reported, not judged, and those while the attack begins apart. The attacker
// is a process of its own and of lowest priority: it stands for other machines, whose CPU time is not the
// nodes'. In full: make slow.
func TestAttack(t *testing.T) {
	attacks := []attack{{Name: "all", Idle: 600, SlowUploads: 100, SlowReads: 60}}
	uploads, rounds, side := 24, 1, 500
	settle := 200 * time.Millisecond
	reads, _ := strconv.Atoi(os.Getenv("SLOW_CLIENTS"))
	if reads > 0 {
		uploads, rounds, side = 100, 5, 1800
		settle = 6 * time.Second // until the first that were cut off are back
		attacks = []attack{
			{Name: "idle connections and slow uploads", Idle: 10_000, SlowUploads: 1000},
			{Name: "slow reads", SlowReads: reads},
			{Name: "all", Idle: 10_000, SlowUploads: 1000, SlowReads: reads},
			{
				Name: "all of the client's address", Idle: 10_000, SlowUploads: 1000, SlowReads: reads,
				OneAddress: true,
			},
		}
	}
	cfg, l := startDemo(t, "cluster.data_shards=3", "log.level=error")
	spec := genimg.Default(1)
	spec.MinPixels, spec.MaxPixels = side, side
	body := spec.Image(1).AppendTo(nil)
	c := normalClient{t: t, addr: cfg.Cluster.Nodes[0].APIAddr(), body: body}
	c.measure("first", uploads)
	for _, a := range attacks {
		t.Run(a.Name, func(t *testing.T) {
			c.t = t
			a.Addr, a.Bytes, a.Images = c.addr, len(body), c.stored[:uploads]
			var quiet50, quiet99, begin50, begin99, under50, under99, ratios []float64
			peak := make([]int64, len(l.Nodes()))
			var cut, again int64
			for range rounds {
				p50, p99 := c.measure("quiet", uploads)
				quiet50, quiet99 = append(quiet50, p50), append(quiet99, p99)
				before := c.again
				stop := startAttack(t, a)
				watched := watchMemory(t, l, peak)
				at50, longest := c.measureFor("begins", settle)
				begin50, begin99 = append(begin50, at50), append(begin99, longest)
				p50, p99 = c.measure("attacked", uploads)
				if !a.OneAddress { // then its part of the places for probes is the attacker's too
					expectProbes(t, c.addr)
				}
				watched()
				cut += stop()
				again += c.again - before
				under50, under99 = append(under50, p50), append(under99, p99)
				ratios = append(ratios, p99/quiet99[len(quiet99)-1])
			}
			ratio := median(under99) / median(quiet99)
			t.Logf("%d idle connections, %d slow uploads, %d slow reads, %d connections cut or refused; %d "+
				"rounds of %d uploads of %d bytes, %d sent again: p50 %.0f ms, p99 %.0f ms, without the "+
				"others %.0f and %.0f ms, ratio of the p99 %.2f (of the rounds %.2f); while it begins p50 %.0f ms, "+
				"the longest %.0f ms; resident memory at most %d MiB", a.Idle, a.SlowUploads,
				a.SlowReads, cut, rounds, uploads, len(body), again, median(under50), median(under99),
				median(quiet50), median(quiet99), ratio, ratios, median(begin50), median(begin99),
				mib(peak))
			for i, n := range peak {
				if limit := int64(cfg.Limits.MemoryBytes) + memoryMargin; n > limit {
					t.Errorf("node %d has %d MiB of resident memory, more than %d MiB", i+1, n>>20, limit>>20)
				}
			}
		})
	}
}

// normalClient uploads images one after the other.
type normalClient struct {
	t      *testing.T
	addr   string
	body   []byte
	again  int64    // uploads that were sent again
	stored []string // paths
}

// measure uploads n images and returns how many milliseconds they take, from the first attempt.
func (c *normalClient) measure(name string, n int) (p50, p99 float64) {
	c.t.Helper()
	took := make([]float64, n)
	for i := range took {
		took[i] = c.upload(name, i)
	}
	slices.Sort(took)
	return took[n/2], took[n*99/100]
}

// measureFor is measure for some time instead of a number of images.
func (c *normalClient) measureFor(name string, d time.Duration) (p50, longest float64) {
	c.t.Helper()
	var took []float64
	for began := time.Now(); len(took) == 0 || time.Since(began) < d; {
		took = append(took, c.upload(name, len(took)))
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)-1]
}

// upload uploads an image and returns how many milliseconds that takes.
func (c *normalClient) upload(name string, i int) (ms float64) {
	c.t.Helper()
	began := time.Now()
	path := fmt.Sprintf("/v1/images/normal/%s-%d.png", name, i)
	poll.Until(c.t, waitMax, "a normal upload to be stored", func() bool {
		if !stored("http://"+c.addr+path, c.body) {
			c.again++
			return false
		}
		return true
	})
	c.stored = append(c.stored, path)
	return time.Since(began).Seconds() * 1000
}

// startAttack returns what ends the attacker and returns how many connections were cut or refused.
func startAttack(t *testing.T, a attack) (stop func() (cut int64)) {
	t.Helper()
	text, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), attackEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := sync.OnceValue(func() error {
		in.Close()
		return cmd.Wait()
	})
	t.Cleanup(func() { ended() })
	var begun int64
	if _, err := fmt.Fscanln(out, &begun); err != nil {
		t.Fatalf("the attack has not begun: %v", err)
	}
	return func() (cut int64) {
		t.Helper()
		in.Close()
		if _, err := fmt.Fscanln(out, &cut); err != nil {
			t.Error(err)
		}
		if err := ended(); err != nil {
			t.Error(err)
		}
		return cut
	}
}

// watchMemory keeps each node's largest resident memory in peak until stop is called.
func watchMemory(t *testing.T, l *local.Cluster, peak []int64) (stop func()) {
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			for i, n := range l.Nodes() {
				peak[i] = max(peak[i], residentBytes(t, n.PID()))
			}
			select {
			case <-over:
				return
			case <-tick.C:
			}
		}
	})
	return func() {
		close(over)
		wg.Wait()
	}
}

// runAttack is the attacker. It returns the exit status.
func runAttack(text string) int {
	var a attack
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, 19); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg, begun sync.WaitGroup
	var cut atomic.Int64
	client := func(kind, i int, request string, then func(net.Conn)) {
		begun.Add(1)
		wg.Go(func() { a.client(ctx, kind, i, request, then, &begun, &cut) })
	}
	for i := range a.Idle {
		client(1, i, "", func(conn net.Conn) { io.Copy(io.Discard, conn) })
	}
	for i := range a.SlowUploads {
		request := fmt.Sprintf("PUT /v1/images/slow/%d.png HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n",
			i, a.Addr, a.Bytes)
		client(2, i, request, func(conn net.Conn) {
			go everySecond(func() error { _, err := conn.Write([]byte{1}); return err })
			io.Copy(io.Discard, conn)
		})
	}
	for i := range a.SlowReads {
		request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", a.Images[i%len(a.Images)], a.Addr)
		client(3, i, request, func(conn net.Conn) {
			conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			everySecond(func() error { _, err := conn.Read(make([]byte, 1)); return err })
		})
	}
	begun.Wait()
	fmt.Println(a.Idle + a.SlowUploads + a.SlowReads)
	io.Copy(io.Discard, os.Stdin)
	stop()
	wg.Wait()
	fmt.Println(cut.Load())
	return 0
}

// client opens connections of one kind, one after the other, until ctx ends.
func (a *attack) client(
	ctx context.Context, kind, i int, request string, then func(net.Conn), begun *sync.WaitGroup,
	cut *atomic.Int64,
) {
	const again = 5 * time.Second // on average; more than the second that Retry-After asks for
	d := net.Dialer{Timeout: 10 * time.Second}
	if !a.OneAddress {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, byte(kind), byte(1+i/200), byte(1+i%40))}
	}
	for first := true; ctx.Err() == nil; first = false {
		conn, err := d.DialContext(ctx, "tcp", a.Addr)
		if err == nil {
			end := context.AfterFunc(ctx, func() { conn.Close() })
			io.WriteString(conn, request)
			if first {
				begun.Done()
				first = false
			}
			then(conn)
			end()
			conn.Close()
			cut.Add(1)
		} else if first {
			begun.Done()
		}
		select {
		case <-ctx.Done():
		case <-time.After(again/2 + rand.N(again)):
		}
	}
}

// everySecond calls do until it fails.
func everySecond(do func() error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for do() == nil {
		<-tick.C
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
