package modes

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"imgcluster/cluster/access"
	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/config"
	"imgcluster/genimg"
	"imgcluster/modes/local"
	"imgcluster/modes/report"
	"imgcluster/modes/runlog"
	"imgcluster/modes/stress"
	"imgcluster/modes/stress/load"
)

// bareEnv makes this test binary a process that receives uploads and discards them, with which the
// throughput of clusters is compared.
const bareEnv = "BARE_BROADCAST_LISTEN"

func init() {
	addr := os.Getenv(bareEnv)
	if addr == "" {
		return
	}
	http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		buf := make([]byte, 256<<10)
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r.Body}, buf)
		if err != nil {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(image.Receipt{
			User:      "u",
			Name:      "n",
			Bytes:     n,
			Owner:     1,
			Replicas:  []image.NodeID{1},
			Committed: true,
		})
	}))
	os.Exit(1)
}

const (
	benchUploads     = 240
	benchConcurrency = 8
	benchImages      = 16 // different ones, generated before the clock starts
	benchRounds      = 5
)

// madeImages is a Source of images in memory.
type madeImages []load.Image

func (m madeImages) Open(_ context.Context, n int64, _ *load.Memory) (load.Image, error) {
	im := m[n%int64(len(m))]
	im.Name = fmt.Sprintf("bench-%d.png", n)
	return im, nil
}

func makeImages() (m madeImages) {
	spec := genimg.Default(1)
	for n := 1; n <= benchImages; n++ {
		im := spec.Image(n)
		b := im.AppendTo(make([]byte, 0, im.Size))
		m = append(m, load.Image{
			Name:  im.Name,
			Class: im.Class,
			Size:  im.Size,
			Body:  func() io.Reader { return bytes.NewReader(b) },
		})
	}
	return m
}

// BenchmarkBroadcast compares clusters of three processes with one and with two durable copies to
// three processes that discard the same bytes, in turn, and reports medians. Run it with
// -benchtime 1x.
func BenchmarkBroadcast(b *testing.B) {
	images := makeImages()
	exe := buildProgram(b)
	for b.Loop() {
		var bare, one, two series
		for range benchRounds {
			bare.add(benchBare(b, images))
			one.add(benchCluster(b, exe, images, 1))
			two.add(benchCluster(b, exe, images, 2))
		}
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(median(bare.rate), "bare-uploads/s")
		b.ReportMetric(median(one.rate), "one-copy-uploads/s")
		b.ReportMetric(median(two.rate), "two-copies-uploads/s")
		b.ReportMetric(one.ratio(bare), "one-copy/bare")
		b.ReportMetric(two.ratio(bare), "two-copies/bare")
		for name, s := range map[string]series{"bare": bare, "one copy": one, "two copies": two} {
			b.Logf("%-10s  uploads/s %.1f, CPU ms an upload: client %.1f, nodes %.1f",
				name, s.rate, s.client, s.nodes)
		}
	}
}

// outcome is the result of one run: uploads a second, and the CPU time of an upload on either side, which
// says more than the rate when the machine has other work.
type outcome struct{ rate, client, nodes float64 }

type series struct{ rate, client, nodes []float64 }

func (s *series) add(o outcome) {
	s.rate = append(s.rate, o.rate)
	s.client = append(s.client, o.client)
	s.nodes = append(s.nodes, o.nodes)
}

// ratio returns the median of the rounds' ratios.
func (s series) ratio(to series) float64 {
	r := make([]float64, len(s.rate))
	for i := range r {
		r[i] = s.rate[i] / to.rate[i]
	}
	return median(r)
}

// cpuRatio returns the median of the ratios of the rounds' CPU, of client and nodes.
func (s series) cpuRatio(to series) float64 {
	r := make([]float64, len(s.rate))
	for i := range r {
		r[i] = (s.client[i] + s.nodes[i]) / (to.client[i] + to.nodes[i])
	}
	return median(r)
}

// cpuMillis returns the CPU time of processes so far, which the kernel counts in hundredths of a second.
func cpuMillis(b *testing.B, pids []int) (ms float64) {
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			b.Fatal(err)
		}
		var user, system float64
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+2:])
		fmt.Sscan(string(fields[11]), &user)
		fmt.Sscan(string(fields[12]), &system)
		ms += 10 * (user + system)
	}
	return ms
}

func median(x []float64) float64 {
	s := slices.Sorted(slices.Values(x))
	return s[len(s)/2]
}

func buildProgram(b *testing.B) string {
	exe := filepath.Join(b.TempDir(), "imgcluster")
	if out, err := exec.Command("go", "build", "-o", exe, "imgcluster").CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return exe
}

// drive uploads so many images with c, to the nodes whose processes are pids.
func drive(b *testing.B, images madeImages, c *client.Client, uploads, concurrency int, pids []int) outcome {
	self := []int{os.Getpid()}
	clientBefore, nodesBefore := cpuMillis(b, self), cpuMillis(b, pids)
	var log bytes.Buffer
	w := runlog.NewWriter(&log)
	err := load.Run(b.Context(), load.Options{
		Run: runlog.Run{
			Profile:     "bench",
			Nodes:       []int{1, 2, 3},
			Count:       int64(uploads),
			Concurrency: concurrency,
			Delivery:    "broadcast",
		},
		Source: images,
		Target: stress.NewTarget(c, wire.ClusterStatus{}),
		Log:    w,
		Users:  []string{"bench"},
	})
	if err != nil {
		b.Fatal(err)
	}
	clientCPU, nodesCPU := cpuMillis(b, self)-clientBefore, cpuMillis(b, pids)-nodesBefore
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	l, err := runlog.Read(&log)
	if err != nil {
		b.Fatal(err)
	}
	r := report.Compute(l, report.DefaultLimits())
	if r.Failed > 0 {
		b.Fatalf("%d uploads failed", r.Failed)
	}
	return outcome{r.ThroughputPerS, clientCPU / float64(uploads), nodesCPU / float64(uploads)}
}

func benchBare(b *testing.B, images madeImages) outcome {
	ports, err := config.FreePorts(3)
	if err != nil {
		b.Fatal(err)
	}
	var nodes []client.Node
	var pids []int
	for i, port := range ports {
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), bareEnv+"="+addr)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		defer func() {
			cmd.Process.Kill()
			cmd.Wait()
		}()
		waitPort(b, addr)
		nodes = append(nodes, client.Node{ID: image.NodeID(i + 1), Addr: addr})
		pids = append(pids, cmd.Process.Pid)
	}
	c, err := client.New(client.Options{Nodes: nodes})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	return drive(b, images, c, benchUploads, benchConcurrency, pids)
}

func waitPort(b *testing.B, addr string) {
	for {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return
		}
		if b.Context().Err() != nil {
			b.Fatal(err)
		}
	}
}

func benchCluster(b *testing.B, exe string, images madeImages, replicas int) (o outcome) {
	withCluster(b, exe, func(c *client.Client, pids []int) {
		o = drive(b, images, c, benchUploads, benchConcurrency, pids)
	}, fmt.Sprintf("cluster.replicas=%d", replicas))
	return o
}

// withCluster calls fn with a client of a cluster of three processes, and their process IDs. Where the
// cluster is secured, the client has an access key.
func withCluster(b *testing.B, exe string, fn func(c *client.Client, pids []int), set ...string) {
	dir := b.TempDir()
	e, cfg := demoConfigured(b, dir, append(set, "log.level=warn")...)
	l, err := local.Start(b.Context(), e.localOptions(cfg, exe))
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := l.Shutdown(b.Context()); err != nil {
			b.Error(err)
		}
		os.RemoveAll(dir)
	}()
	var nodes []client.Node
	var pids []int
	for i, n := range cfg.Cluster.Nodes {
		nodes = append(nodes, client.Node{ID: n.ID, Addr: n.APIAddr()})
		pids = append(pids, l.Nodes()[i].PID())
	}
	o := client.Options{Nodes: nodes}
	if err := e.authenticate(cfg, &o); err != nil {
		b.Fatal(err)
	}
	if cfg.Secured() {
		authority, err := e.authority(cfg)
		if err != nil {
			b.Fatal(err)
		}
		o = withKey(b, o, authority)
	}
	c, err := client.New(o)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	fn(c, pids)
}

// withKey returns the options of a client that has an access key in place of an administrator's certificate.
func withKey(b *testing.B, o client.Options, authority *access.Authority) client.Options {
	admin, err := client.New(o)
	if err != nil {
		b.Fatal(err)
	}
	defer admin.Close()
	_, err = admin.AddUser(b.Context(), "bench")
	var made wire.NewKey
	if err == nil {
		made, err = admin.AddAccessKey(b.Context(), wire.KeyRequest{User: "bench", Role: image.RoleWrite})
	}
	if err != nil {
		b.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.CertificatePEM())
	o.TLS = access.Client(roots, nil)
	o.Key = access.Credentials{ID: made.ID, Secret: access.NewSecret(made.Secret)}
	return o
}

// BenchmarkSecurity compares clusters with TLS and access keys to clusters without, in turn, and reports
// medians: large images sent to all nodes and read again, and small ones. Run it with -benchtime 1x.
func BenchmarkSecurity(b *testing.B) {
	const smallUploads, smallConcurrency, smallBytes = 3000, 32, 10_000
	large, small, exe := makeImages(), randomImages(benchImages, smallBytes), buildProgram(b)
	for b.Loop() {
		results := map[string][2]series{}
		for round := range benchRounds {
			for i := range 2 {
				secured := (round+i)%2 == 1 // each is the first one as often as the other
				add := func(what string, o outcome) {
					both := results[what]
					both[btoi(secured)].add(o)
					results[what] = both
				}
				withCluster(b, exe, func(c *client.Client, pids []int) {
					add("broadcast of 13 MB", drive(b, large, c, benchUploads, benchConcurrency, pids))
					add("GET of 13 MB", readBack(b, c, benchUploads, benchConcurrency, pids))
					add("broadcast of 10 KB", drive(b, small, c, smallUploads, smallConcurrency, pids))
				}, fmt.Sprintf("security.always=%t", secured))
			}
		}
		b.ReportMetric(0, "ns/op")
		for what, both := range results {
			for i, s := range both {
				b.Logf("%-18s  %-11s  %.1f a second, CPU ms each: client %.2f, nodes %.2f", what,
					[]string{"without TLS", "with TLS"}[i], median(s.rate), median(s.client), median(s.nodes))
			}
			b.Logf("%-18s  with to without: rate %.2f, CPU %.2f", what, both[1].ratio(both[0]),
				both[1].cpuRatio(both[0]))
		}
	}
}

func btoi(x bool) int {
	if x {
		return 1
	}
	return 0
}

// randomImages returns images of this many random bytes.
func randomImages(n, size int) (m madeImages) {
	for range n {
		body := make([]byte, size)
		rand.Read(body)
		m = append(m, load.Image{Size: int64(size), Body: func() io.Reader { return bytes.NewReader(body) }})
	}
	return m
}

// readBack reads images that drive has uploaded, in their order.
func readBack(b *testing.B, c *client.Client, count, concurrency int, pids []int) outcome {
	self := []int{os.Getpid()}
	clientBefore, nodesBefore, began := cpuMillis(b, self), cpuMillis(b, pids), time.Now()
	var g errgroup.Group
	g.SetLimit(concurrency)
	for n := range count {
		g.Go(func() error {
			o, err := c.Get(b.Context(), "bench", fmt.Sprintf("bench-%d.png", n+1), false)
			if err == nil {
				_, err = io.Copy(io.Discard, o.Body)
				o.Body.Close()
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	each := float64(count)
	return outcome{
		each / time.Since(began).Seconds(), (cpuMillis(b, self) - clientBefore) / each,
		(cpuMillis(b, pids) - nodesBefore) / each,
	}
}
