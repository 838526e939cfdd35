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
	"imgcluster/config"
)

// envLoad is the variable that makes the test binary a load: the LoadOptions, as JSON.
const envLoad = "CLUSTERTEST_LOAD"

// answerMax is the longest that a load waits for an answer: longer is a hang (invariant I9).
const answerMax = 90 * time.Second

// LoadOptions say what a load does. It runs as a process of its own, at a host of the network.
type LoadOptions struct {
	User     string          // of its images
	Delivery client.Delivery // by the product's client; empty: by a plain PUT to the node To alone
	To       image.NodeID
	Nodes    []image.NodeID // that the client knows; empty: all
	Attempts int            // of the client for one upload; 0: as configured
	Workers  int            // uploads at once
	Sizes    []int          // of the images, in bytes, in turn
	Config   string         // set by StartLoad
}

// Sent is an upload that has ended, well or not.
type Sent struct {
	User, Name   string
	Seed         uint64 // of the Image
	Size         int
	Began, Ended time.Time
	Acknowledged bool
	Status       int    // of the answer to a plain PUT, 0: none
	Code         string // image.Kind of a failure
	Failure      string
	Promised     bool // a refusal has the form that clients are promised: problem+json with Retry-After
}

// Load is a load that runs. Its methods may be called at any time.
type Load struct {
	cmd   *exec.Cmd
	stdin io.Closer
	done  chan struct{}

	mu   sync.Mutex
	sent []Sent
}

// StartLoad starts a process at a host that uploads images, one after the other, until Stop or until
// the test ends. The nodes must have been started.
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
				break // its end
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

// Sent returns what was sent so far.
func (l *Load) Sent() []Sent {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.sent)
}

// Stop lets the uploads that are under way end, and returns all.
func (l *Load) Stop() []Sent {
	l.stdin.Close()
	<-l.done
	return l.Sent()
}

// Image returns the bytes of the upload.
func (s Sent) Image() []byte { return Image(s.Seed, s.Size) }

// Took is how long it took.
func (s Sent) Took() time.Duration { return s.Ended.Sub(s.Began) }

// generate is the process of a load.
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
				s := Sent{User: o.User, Name: fmt.Sprintf("%d.png", i), Seed: uint64(i), Size: o.Sizes[i%len(o.Sizes)], Began: time.Now()}
				put(&s)
				s.Ended = time.Now()
				mu.Lock()
				out.Encode(s) // the parent is gone: so is stdin
				mu.Unlock()
				select {
				case <-ctx.Done():
				case <-time.After(loadPause):
				}
			}
		})
	}
	workers.Wait()
	return nil
}

// loadPause is the time between two uploads of a worker: the machine shall not be what limits.
const loadPause = 50 * time.Millisecond

func (o LoadOptions) sender(cfg *config.Config) (put func(*Sent), err error) {
	if o.Delivery == "" {
		node, err := cfg.Node(o.To)
		if err != nil {
			return nil, err
		}
		plain := &http.Client{Timeout: answerMax}
		return func(s *Sent) { s.plain(plain, node.APIAddr()) }, nil
	}
	co := client.Options{
		Delivery: o.Delivery, Attempts: o.Attempts, BackoffMin: cfg.Client.BackoffMin, BackoffMax: cfg.Client.BackoffMax,
		DialTimeout: cfg.Client.Dial, ResponseTimeout: cfg.Client.Response,
		ReadTimeout: cfg.Client.Read, StragglerTimeout: cfg.Client.Straggler,
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

// client uploads by the product's client.
func (s *Sent) client(cl *client.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), answerMax)
	defer cancel()
	body := s.Image()
	_, err := cl.Put(ctx, client.Upload{User: s.User, Name: s.Name, Size: int64(s.Size), Body: func() io.Reader { return bytes.NewReader(body) }})
	if s.Acknowledged = err == nil; err != nil {
		s.Code, s.Failure = string(image.KindOf(err)), err.Error()
	}
}

// plain uploads as curl does.
func (s *Sent) plain(cl *http.Client, addr string) {
	req, err := http.NewRequest(http.MethodPut, "http://"+addr+Path(s.User, s.Name), bytes.NewReader(s.Image()))
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
	s.Status, s.Code = r.Status, string(r.Problem.Code)
	if r.Status == http.StatusCreated && r.Err == nil && json.Unmarshal(r.Body, &rec) == nil {
		s.Acknowledged = rec.Committed
		return
	}
	after, err := strconv.Atoi(r.Header.Get("Retry-After"))
	s.Promised = err == nil && after > 0 && r.Problem.Status == r.Status && r.Problem.Detail != "" && r.Problem.Hint != ""
	s.Failure = fmt.Sprintf("%d %s", r.Status, r.Body)
}
