package cluster_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
	"imgcluster/config"
)

// TestHistories has clients put, get and delete the same few names through all nodes of one cluster,
// in the middle of which a fault comes, and judges what they saw (invariant I7): 60 histories, or
// IMGCLUSTER_HISTORIES of them. IMGCLUSTER_SEED gives other requests and other faults.
func TestHistories(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	count, seed := number(t, "IMGCLUSTER_HISTORIES", 60), number(t, "IMGCLUSTER_SEED", 1)
	r := startHistories(t, uint64(seed))
	begun := time.Now()
	for r.judged < count && !t.Failed() {
		r.round(t, min(historiesAtOnce, count-r.judged))
	}
	r.report(t, seed, time.Since(begun))
	r.c.ExpectSettled(t)
	r.c.ExpectNoPlaintext(t)
}

func number(t *testing.T, variable string, otherwise int) int {
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is not a number from 1", variable, text)
	}
	return n
}

// The size of a history. A round has several, which share one fault.
const (
	historiesAtOnce   = 10
	clientsPerHistory = 3
	callsPerClient    = 8
	namesPerHistory   = 2
	bodyBytesMax      = 8 << 10
	// patience is how long a client waits for an answer; one operation in cutOneIn is cut off sooner, by
	// a client that goes away.
	patience    = 1500 * time.Millisecond
	cutOneIn    = 12
	cutAfterMax = 30 * time.Millisecond
)

// histories is a run of them on one cluster.
type histories struct {
	c   *clustertest.Cluster
	cl  *client.Client
	rng *rand.Rand

	ended  atomic.Int64 // operations
	rounds int
	judged int
	faults map[string]int

	mu     sync.Mutex
	values map[[sha256.Size]byte]int // of all bodies, by their hash
	counts map[string]int            // operations by what they were and how they ended
}

func startHistories(t *testing.T, seed uint64) *histories {
	c := clustertest.Start(t, clustertest.Options{Processes: true, Change: func(cfg *config.Config) {
		cfg.Limits.Uploads = 2 * historiesAtOnce * clientsPerHistory
		cfg.Timeouts.PeerSilence, cfg.Timeouts.Takeover = 500*time.Millisecond, 700*time.Millisecond
		cfg.Repair.Delay = time.Second   // copies are made while the clients go on
		cfg.Timeouts.Sweep = time.Second // what a killed node left on others
	}})
	c.HTTP.Transport.(*http.Transport).MaxIdleConnsPerHost = historiesAtOnce * clientsPerHistory
	return &histories{
		c: c, cl: c.Client(t, client.Broadcast), rng: rand.New(rand.NewPCG(seed, 0)),
		faults: map[string]int{}, values: map[[sha256.Size]byte]int{}, counts: map[string]int{},
	}
}

// round runs n histories at once, with a fault in their midst.
func (r *histories) round(t *testing.T, n int) {
	var all []*history
	var wg sync.WaitGroup
	for i := range n {
		h := &history{start: time.Now()}
		all = append(all, h)
		for who := range clientsPerHistory {
			rng := rand.New(rand.NewPCG(r.rng.Uint64(), 0))
			wg.Go(func() { r.client(t, h, who, rng, fmt.Sprintf("%d-%d", r.rounds, i)) })
		}
	}
	finished := make(chan struct{})
	go func() { wg.Wait(); close(finished) }()
	calls := int64(n * clientsPerHistory * callsPerClient)
	due := r.ended.Load() + calls/8
	// wait returns when some more operations have ended.
	wait := func() {
		due += 1 + r.rng.Int64N(calls/4)
		clustertest.Poll(t, "operations end", func() bool {
			select {
			case <-finished:
				return true
			default:
				return r.ended.Load() >= due
			}
		})
	}
	wait()
	f := historyFaults[r.rounds%len(historyFaults)]
	f.do(r, wait)
	r.faults[f.name]++
	<-finished
	for i, h := range all {
		r.readAll(t, h, fmt.Sprintf("%d-%d", r.rounds, i))
		if why := judge(h.ops); why != "" {
			t.Errorf("round %d (%s), history %d is not linearizable:\n%s\nall of it:\n%s", r.rounds, f.name, i, why, text(h.ops))
		}
		r.judged++
	}
	r.rounds++
}

// historyFaults come one after the other. wait lets the clients go on for a while.
var historyFaults = []struct {
	name string
	do   func(r *histories, wait func())
}{
	{"a node killed", func(r *histories, wait func()) {
		id := r.anyNode()
		r.c.Kill(id)
		wait()
		r.c.Start(id)
	}},
	{"a node paused", func(r *histories, wait func()) {
		id := r.anyNode()
		r.c.Pause(id)
		wait()
		r.c.Resume(id)
	}},
	{"the leader of most shards killed", func(r *histories, _ func()) {
		id := r.leader()
		r.c.Kill(id)
		r.c.Start(id)
	}},
	{"the leader of most shards paused twice", func(r *histories, wait func()) {
		for range 2 {
			id := r.leader()
			r.c.Pause(id)
			wait()
			r.c.Resume(id)
		}
	}},
	{"a node restarted", func(r *histories, _ func()) {
		id := r.anyNode()
		r.c.Stop(id)
		r.c.Start(id)
	}},
	{"all nodes killed", func(r *histories, _ func()) {
		for _, id := range r.c.IDs() {
			r.c.Kill(id)
		}
		r.c.Start(r.c.IDs()...)
	}},
}

func (r *histories) anyNode() image.NodeID { return r.c.IDs()[r.rng.IntN(len(r.c.IDs()))] }

// leader is the node that leads most shards.
func (r *histories) leader() image.NodeID {
	nodes := r.c.Status(r.anyNode()).Nodes
	if len(nodes) == 0 {
		return r.anyNode()
	}
	return slices.MaxFunc(nodes, func(a, b image.NodeStatus) int { return a.LeaderOf - b.LeaderOf }).ID
}

func historyName(prefix string, n int) string { return fmt.Sprintf("%s/%d.png", prefix, n) }

// client makes one client's operations, each through any node.
func (r *histories) client(t *testing.T, h *history, who int, rng *rand.Rand, prefix string) {
	for range callsPerClient {
		in := call{name: historyName(prefix, rng.IntN(namesPerHistory))}
		called := h.now()
		var out answer
		told := true
		switch n := rng.IntN(10); {
		case n < 4:
			in.act = actGet
			out, told = r.get(t, in.name, r.node(rng))
		case n < 6:
			in.act = actDelete
			out = r.delete(t, in.name, rng)
		case n < 8:
			in.act = actPutNew
			in.value, out = r.put(t, in, rng)
		default:
			in.act = actPut
			in.value, out = r.put(t, in, rng)
		}
		if told {
			h.add(who, called, in, out)
			r.count(in, out)
		}
		r.ended.Add(1)
	}
}

func (r *histories) node(rng *rand.Rand) image.NodeID { return r.c.IDs()[rng.IntN(len(r.c.IDs()))] }

func (r *histories) count(in call, out answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	what := [...]string{": unknown", ": done", ": refused"}[out.verdict]
	if in.act == actGet && out.value == absent {
		what = ": no image"
	}
	r.counts[string(in.act)+what]++
}

// limited is the time that a client gives an operation.
func limited(t *testing.T, rng *rand.Rand) (context.Context, context.CancelFunc) {
	d := patience
	if rng != nil && rng.IntN(cutOneIn) == 0 {
		d = time.Duration(rng.Int64N(int64(cutAfterMax)))
	}
	return context.WithTimeout(t.Context(), d)
}

// ask sends one request, as clustertest's Do does, but for the time that ctx allows.
func (r *histories) ask(ctx context.Context, method string, id image.NodeID, name string, body []byte, header http.Header) clustertest.Response {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+r.c.Addr(id)+clustertest.Path("alice", name), bytes.NewReader(body))
	if err != nil {
		return clustertest.Response{Err: err}
	}
	maps.Copy(req.Header, header)
	resp, err := r.c.HTTP.Do(req)
	if err != nil {
		return clustertest.Response{Err: err}
	}
	return clustertest.ReadResponse(resp)
}

// get reads a name; ok is false when there was no answer, which then tells nothing.
func (r *histories) get(t *testing.T, name string, id image.NodeID) (out answer, ok bool) {
	ctx, cancel := limited(t, nil)
	defer cancel()
	resp := r.ask(ctx, http.MethodGet, id, name, nil, nil)
	switch {
	case resp.Err == nil && resp.Status == http.StatusNotFound:
		return answer{verdict: outDone, value: absent}, true
	case resp.Err != nil || resp.Status != http.StatusOK:
		return answer{}, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	value := r.values[sha256.Sum256(resp.Body)]
	if value == 0 {
		t.Errorf("node %d gave %d bytes as %s that nobody has put", id, len(resp.Body), name)
	}
	return answer{verdict: outDone, value: value}, true
}

// delete deletes a name; like put it may ask again.
func (r *histories) delete(t *testing.T, name string, rng *rand.Rand) answer {
	key := http.Header{"Idempotency-Key": {image.NewID().String()}}
	for range 1 + rng.IntN(2) {
		ctx, cancel := limited(t, rng)
		resp := r.ask(ctx, http.MethodDelete, r.node(rng), name, nil, key)
		cancel()
		switch {
		case resp.Err == nil && resp.Status == http.StatusNoContent:
			return answer{verdict: outDone}
		case resp.Err == nil && resp.Status == http.StatusNotFound:
			return answer{verdict: outRefused}
		}
	}
	return answer{}
}

// body makes an image that was never before.
func (r *histories) body(rng *rand.Rand) (value int, body []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	value = len(r.values) + 1
	body = clustertest.Image(uint64(value), 100+rng.IntN(bodyBytesMax-100))
	r.values[sha256.Sum256(body)] = value
	return value, body
}

// put stores an image, as a broadcast or through one node. Without a clear answer it may send it again
// under the same upload ID, through any node: both together are one operation.
func (r *histories) put(t *testing.T, in call, rng *rand.Rand) (value int, out answer) {
	value, body := r.body(rng)
	id := image.NewID()
	for range 1 + rng.IntN(2) {
		if rng.IntN(2) == 0 {
			out.verdict = r.broadcast(t, in, id, body, rng)
		} else {
			out.verdict = r.relay(t, in, id, body, rng)
		}
		if out.verdict != outUnknown {
			break
		}
	}
	return value, out
}

func (r *histories) broadcast(t *testing.T, in call, id image.ID, body []byte, rng *rand.Rand) verdict {
	ctx, cancel := limited(t, rng)
	defer cancel()
	_, err := r.cl.Put(ctx, client.Upload{
		User: "alice", Name: in.name, Size: int64(len(body)), ID: id, IfNoneMatch: in.act == actPutNew,
		Body: func() io.Reader { return bytes.NewReader(body) },
	})
	switch {
	case err == nil:
		return outDone
	case image.KindOf(err) == image.KindExists:
		return outRefused
	}
	return outUnknown
}

func (r *histories) relay(t *testing.T, in call, id image.ID, body []byte, rng *rand.Rand) verdict {
	ctx, cancel := limited(t, rng)
	defer cancel()
	header := http.Header{"Idempotency-Key": {id.String()}}
	if in.act == actPutNew {
		header.Set("If-None-Match", "*")
	}
	resp := r.ask(ctx, http.MethodPut, r.node(rng), in.name, body, header)
	switch {
	case resp.Err != nil:
	case resp.Status == http.StatusOK || resp.Status == http.StatusCreated:
		return outDone
	case resp.Status == http.StatusPreconditionFailed:
		return outRefused
	}
	return outUnknown
}

// readAll gets every name through every node, once it serves again.
func (r *histories) readAll(t *testing.T, h *history, prefix string) {
	for i, id := range r.c.IDs() {
		for n := range namesPerHistory {
			in := call{act: actGet, name: historyName(prefix, n)}
			clustertest.Poll(t, fmt.Sprintf("node %d gives %s", id, in.name), func() bool {
				called := h.now()
				out, ok := r.get(t, in.name, id)
				if ok {
					h.add(clientsPerHistory+i, called, in, out)
					r.count(in, out)
				}
				return ok
			})
		}
	}
}

// report prints the figures, and fails a run that has tried too little to judge anything.
func (r *histories) report(t *testing.T, seed int, took time.Duration) {
	operations, unclear := 0, 0
	var lines []string
	for _, what := range slices.Sorted(maps.Keys(r.counts)) {
		n := r.counts[what]
		operations += n
		if strings.HasSuffix(what, ": unknown") {
			unclear += n
		}
		lines = append(lines, fmt.Sprintf("%8d  %s", n, what))
	}
	faults := 0
	for _, what := range slices.Sorted(maps.Keys(r.faults)) {
		faults += r.faults[what]
		lines = append(lines, fmt.Sprintf("%8d  %s", r.faults[what], what))
	}
	t.Logf("seed %d: %d histories, %d operations, %d of unknown outcome, %d faults, %.0f seconds\n%s",
		seed, r.judged, operations, unclear, faults, took.Seconds(), strings.Join(lines, "\n"))
	for _, what := range []string{"put: done", "put if absent: done", "put if absent: refused", "get: done", "get: no image", "delete: done", "delete: refused"} {
		if r.counts[what] == 0 && !t.Failed() {
			t.Errorf("no operation was %q", what)
		}
	}
}
