package clustertest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wait"
	"imgcluster/config"
)

// envLoad is the variable that makes the test binary a load generator. Its value is the LoadOptions as JSON.
const envLoad = "CLUSTERTEST_LOAD"

// answerMax is how long a load waits for an answer. A longer wait counts as a hang (invariant I9).
const answerMax = 90 * time.Second

// LoadOptions are the settings of a load, which runs as a process of its own on a host of the network.
type LoadOptions struct {
	User     string          // of its images
	Delivery client.Delivery // of imgcluster's client; empty: a plain PUT to the node To alone
	To       image.NodeID
	Nodes    []image.NodeID // of the client; empty: all
	Attempts int            // of the client for one upload; 0: as configured
	Workers  int            // uploads at once
	Sizes    []int          // of the images, in bytes, in turn
	Config   string         // set by StartLoad
}

// Sent is an upload that has ended, with or without success.
type Sent struct {
	User, Name   string
	Seed         uint64 // of the Image
	Size         int
	Began, Ended time.Time
	Acknowledged bool
	Status       int    // of the answer to a plain PUT, 0: none
	Code         string // image.Kind of a failure
	Failure      string
	Promised     bool // a refusal is a complete problem with Retry-After, as clients are promised
}

// Load is a running load. Its methods may be called at any time.
type Load struct {
	cmd   *exec.Cmd
	stdin io.Closer
	done  chan struct{}

	mu   sync.Mutex
	sent []Sent
}

// StartLoad starts a process on a host that uploads images until Stop or until the test ends. The nodes must
// have been started.
func (c *Cluster) StartLoad(t testing.TB, at netip.Addr, o LoadOptions) *Load {
	t.Helper()
	o.Config = filepath.Join(c.dir, configFile)
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	l := &Load{cmd: c.network.Command(at, os.Args[0]), done: make(chan struct{})}
	l.cmd.Env = append(os.Environ(), envLoad+"="+string(text))
	l.cmd.Stderr = os.Stderr
	l.stdin, err = l.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := l.cmd.StdoutPipe()
	if err == nil {
		err = l.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(l.done)
		for d := json.NewDecoder(out); ; {
			var s Sent
			if err := d.Decode(&s); err != nil {
				break // the process has ended
			}
			l.mu.Lock()
			l.sent = append(l.sent, s)
			l.mu.Unlock()
		}
		if err := l.cmd.Wait(); err != nil {
			t.Errorf("load of %s: %v", o.User, err)
		}
	}()
	t.Cleanup(func() { l.Stop() })
	return l
}

// Sent returns the uploads that have ended so far.
func (l *Load) Sent() []Sent {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.sent)
}

// Stop waits for the uploads in flight and returns all uploads.
func (l *Load) Stop() []Sent {
	l.stdin.Close()
	<-l.done
	return l.Sent()
}

// Image returns the bytes of the upload.
func (s Sent) Image() []byte { return Image(s.Seed, s.Size) }

// Took returns how long the upload took.
func (s Sent) Took() time.Duration { return s.Ended.Sub(s.Began) }

// generate runs a load, in a process of its own, until its standard input ends.
func generate(text string) error {
	var o LoadOptions
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	cfg, err := config.Load(config.Options{Path: o.Config})
	if err != nil {
		return err
	}
	put, err := o.sender(cfg)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	var workers sync.WaitGroup
	for w := range o.Workers {
		workers.Go(func() {
			for i := w; ctx.Err() == nil; i += o.Workers {
				s := o.upload(i, put)
				mu.Lock()
				out.Encode(s) // an error means that the test has ended, and with it stdin
				mu.Unlock()
				wait.For(ctx, loadPause)
			}
		})
	}
	workers.Wait()
	return nil
}

// loadPause is the time between two uploads of a worker, so that the host's CPU is not the bottleneck.
const loadPause = 50 * time.Millisecond

// upload sends the i-th image.
func (o LoadOptions) upload(i int, put func(*Sent)) Sent {
	s := Sent{User: o.User, Name: fmt.Sprintf("%d.png", i), Seed: uint64(i), Size: o.Sizes[i%len(o.Sizes)]}
	s.Began = time.Now()
	put(&s)
	s.Ended = time.Now()
	return s
}

// sender returns the function that sends one image and fills in the outcome.
func (o LoadOptions) sender(cfg *config.Config) (put func(*Sent), err error) {
	tls, err := clientTLS(cfg)
	if err != nil {
		return nil, err
	}
	if o.Delivery == "" {
		node, err := cfg.Node(o.To)
		if err != nil {
			return nil, err
		}
		plain := &http.Client{Timeout: answerMax, Transport: &http.Transport{TLSClientConfig: tls}}
		return func(s *Sent) { s.plain(plain, cfg.Scheme()+"://"+node.APIAddr()) }, nil
	}
	co := client.Options{
		Delivery:         o.Delivery,
		Attempts:         o.Attempts,
		BackoffMin:       cfg.Client.BackoffMin,
		BackoffMax:       cfg.Client.BackoffMax,
		DialTimeout:      cfg.Client.Dial,
		ResponseTimeout:  cfg.Client.Response,
		ReadTimeout:      cfg.Client.Read,
		StragglerTimeout: cfg.Client.Straggler,
		TLS:              tls,
	}
	if o.Attempts == 0 {
		co.Attempts = cfg.Client.Attempts
	}
	for _, n := range cfg.Cluster.Nodes {
		if len(o.Nodes) == 0 || slices.Contains(o.Nodes, n.ID) {
			co.Nodes = append(co.Nodes, client.Node{ID: n.ID, Addr: n.APIAddr()})
		}
	}
	cl, err := client.New(co)
	return func(s *Sent) { s.client(cl) }, err
}

// client uploads with imgcluster's client.
func (s *Sent) client(cl *client.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), answerMax)
	defer cancel()
	body := s.Image()
	_, err := cl.Put(ctx, client.Upload{
		User: s.User, Name: s.Name, Size: int64(s.Size),
		Body: func() io.Reader { return bytes.NewReader(body) },
	})
	s.Acknowledged = err == nil
	if err != nil {
		s.Code = string(image.KindOf(err))
		s.Failure = err.Error()
	}
}

// plain uploads with one PUT request, as curl does. node is the scheme and address of one.
func (s *Sent) plain(cl *http.Client, node string) {
	url := node + Path(s.User, s.Name)
	req, err := http.NewRequest(http.MethodPut, url, bytes.NewReader(s.Image()))
	var resp *http.Response
	if err == nil {
		resp, err = cl.Do(req)
	}
	if err != nil {
		s.Failure = err.Error()
		return
	}
	r := ReadResponse(resp)
	var rec image.Receipt
	s.Status = r.Status
	s.Code = string(r.Problem.Code)
	if r.Status == http.StatusCreated && r.Err == nil && json.Unmarshal(r.Body, &rec) == nil {
		s.Acknowledged = rec.Committed
		return
	}
	after, err := strconv.Atoi(r.Header.Get("Retry-After"))
	complete := r.Problem.Status == r.Status && r.Problem.Detail != "" && r.Problem.Hint != ""
	s.Promised = err == nil && after > 0 && complete
	s.Failure = fmt.Sprintf("%d %s", r.Status, r.Body)
}
