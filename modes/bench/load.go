//go:build linux

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"imgcluster/cluster/access"
	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/genimg"
)

// The images of a load: different ones, in memory before the clock starts.
const (
	imageCount = 16
	user       = "bench"
)

// work is what a load process does. It ends after Count requests, or begins no more after Seconds.
type work struct {
	Cell
	Nodes   []client.Node `json:"nodes,omitempty"` // that images are put to
	All     bool          `json:"all,omitempty"`   // an upload ends when all nodes have answered, not the first
	URLs    []string      `json:"urls,omitempty"`  // of images to get, in turn
	CA      []byte        `json:"ca,omitempty"`
	KeyID   string        `json:"key_id,omitempty"`
	Secret  string        `json:"secret,omitempty"`
	Count   int64         `json:"count,omitempty"`
	Seconds float64       `json:"seconds,omitempty"`
}

// done is what it measured.
type done struct {
	Count    int64                     `json:"count"`
	Bytes    int64                     `json:"bytes"`       // of images
	Seconds  float64                   `json:"seconds"`     // until the last answer
	All      float64                   `json:"all_seconds"` // until nothing was sent any more
	CPUMS    float64                   `json:"cpu_ms"`
	Peak     int64                     `json:"peak_bytes"` // resident, beyond the images
	P50MS    float64                   `json:"p50_ms"`
	P99MS    float64                   `json:"p99_ms"`
	Replicas map[string][]image.NodeID `json:"replicas,omitempty"` // of each image put
	Chosen   client.Delivery           `json:"chosen,omitempty"`   // by client.Auto
}

// loader is a load process at work.
type loader struct {
	work
	images     [][]byte
	put        *client.Client
	get        *http.Client
	key        access.Credentials
	next       atomic.Int64 // of all requests so far
	stragglers sync.WaitGroup

	mu        sync.Mutex
	done      done
	latencies []float64
}

// loadMain is the process that makes the load: it reads its work, prepares, says so by a line, begins at the
// next line, says what it measured by a second line, and keeps its connections until its input ends.
func loadMain() error {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	l := &loader{}
	if err := in.Decode(&l.work); err != nil {
		return err
	}
	if err := l.prepare(); err != nil {
		return err
	}
	for begin := false; ; {
		if err := out.Encode(l.done); err != nil {
			return err
		}
		if err := in.Decode(&begin); err != nil {
			return nil
		}
		if err := l.run(); err != nil {
			return err
		}
	}
}

func (l *loader) prepare() error {
	o := client.Options{Nodes: l.Nodes, Delivery: cmp.Or(l.Delivery, client.Broadcast)}
	if l.CA != nil {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(l.CA)
		o.TLS = access.Client(roots, nil)
	}
	if l.KeyID != "" {
		l.key = access.Credentials{ID: l.KeyID, Secret: access.NewSecret(l.Secret)}
		o.Key = l.key
	}
	if l.Op != opPut {
		l.get = getClient(o.TLS, l.Concurrency)
		return l.each(int64(max(len(l.URLs), l.Concurrency)), l.read) // caches warm, connections open
	}
	l.images = images(l.Bytes)
	var err error
	l.put, err = client.New(o)
	return err
}

func getClient(t *tls.Config, conns int) *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: t, MaxIdleConnsPerHost: conns, ReadBufferSize: 64 << 10, DisableCompression: true,
	}}
}

// images returns images of the test set, or random ones of this size.
func images(size int) (all [][]byte) {
	for n := 1; n <= imageCount; n++ {
		b := make([]byte, size)
		if size > 0 {
			rand.Read(b)
		} else {
			im := genimg.Default(1).Image(n)
			b = im.AppendTo(make([]byte, 0, im.Size))
		}
		all = append(all, b)
	}
	return all
}

// run makes the load.
func (l *loader) run() error {
	debug.FreeOSMemory() // of what came before
	resetPeak()
	l.done = done{Replicas: map[string][]image.NodeID{}}
	l.latencies = nil
	request, before, began := l.read, cpu(os.Getpid()), time.Now()
	if l.Op == opPut {
		request = l.store
	}
	if err := l.each(l.Count, request); err != nil {
		return err
	}
	l.done.Seconds = time.Since(began).Seconds()
	l.stragglers.Wait() // what the other nodes are still being sent is a part of the uploads
	l.done.All = time.Since(began).Seconds()
	l.done.CPUMS = cpu(os.Getpid()) - before
	_, l.done.Peak = memory(os.Getpid())
	for _, b := range l.images {
		l.done.Peak -= int64(len(b))
	}
	slices.Sort(l.latencies)
	l.done.P50MS, l.done.P99MS = quantile(l.latencies, 0.5), quantile(l.latencies, 0.99)
	return nil
}

// each makes so many requests, or as many as begin within the seconds of the work, some at once.
func (l *loader) each(count int64, request func(context.Context, int64) (bytes int64, err error)) error {
	g, ctx := errgroup.WithContext(context.Background())
	var begun atomic.Int64
	end := time.Now().Add(time.Duration(l.Seconds * float64(time.Second)))
	more := func() bool {
		if count > 0 {
			return begun.Add(1) <= count
		}
		return time.Now().Before(end)
	}
	for range l.Concurrency {
		g.Go(func() error {
			for more() && ctx.Err() == nil {
				began := time.Now()
				n, err := request(ctx, l.next.Add(1)-1)
				if err != nil {
					return err
				}
				l.mu.Lock()
				l.done.Count++
				l.done.Bytes += n
				l.latencies = append(l.latencies, float64(time.Since(began).Microseconds())/1000)
				l.mu.Unlock()
			}
			return nil
		})
	}
	return g.Wait()
}

// store uploads an image.
func (l *loader) store(ctx context.Context, n int64) (int64, error) {
	body := l.images[n%imageCount]
	name := fmt.Sprintf("image-%d", n)
	r, err := l.put.Put(ctx, client.Upload{
		User: user, Name: name, Size: int64(len(body)),
		Body: func() io.Reader { return bytes.NewReader(body) },
	})
	if err != nil {
		return 0, err
	}
	if l.All {
		<-r.Done
	}
	l.stragglers.Go(func() {
		<-r.Done
		if c := r.Chosen(); c != nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.done.Chosen = c.Delivery
		}
	})
	l.mu.Lock()
	l.done.Replicas[name] = r.Receipt.Replicas
	l.mu.Unlock()
	return int64(len(body)), nil
}

// read gets an image or a part of it.
func (l *loader) read(ctx context.Context, n int64) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.URLs[n%int64(len(l.URLs))], nil)
	if err != nil {
		return 0, err
	}
	if !l.key.None() {
		l.key.Authorize(req.Header)
	}
	want := http.StatusOK
	if l.Op == opRange {
		from := n * 999_983 % rangesFrom
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, from+rangeBytes-1))
		want = http.StatusPartialContent
	}
	resp, err := l.get.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != want {
		return 0, fmt.Errorf("%s: %s", req.URL, resp.Status)
	}
	got, err := discard(resp.Body)
	if err == nil && (got != resp.ContentLength || l.Op == opRange && got != rangeBytes) {
		err = fmt.Errorf("%s: %d bytes", req.URL, got)
	}
	return got, err
}

// discard reads a body to its end.
func discard(body io.Reader) (int64, error) {
	// Hidden are the methods by which io.Copy would choose its own buffer.
	return io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{body}, make([]byte, 256<<10))
}

// rangesFrom is where ranges begin at most: in the smallest image of the test set.
const rangesFrom = 4 << 20

// quantile returns a quantile of sorted numbers; of none 0.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}
