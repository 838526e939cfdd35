package cluster_test

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/clustertest/env"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wait"
	"imgcluster/cluster/wire"
	"imgcluster/config"
)

// TestHistories has clients put, get and delete the same few names through all nodes of one cluster, injects
// a fault meanwhile, and expects that what they saw is linearizable (invariant I7): 60 histories, or
// IMGCLUSTER_HISTORIES of them, on three nodes, or IMGCLUSTER_NODES of them. IMGCLUSTER_SEED selects other
// requests and other faults.
func TestHistories(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	count := env.Number(t, "IMGCLUSTER_HISTORIES", 60)
	seed := env.Number(t, "IMGCLUSTER_SEED", 1)
	runHistories(t, env.Number(t, "IMGCLUSTER_NODES", 3), count, seed)
}

// TestHistoriesOfFive is TestHistories with more nodes than there are replicas of a shard: clients ask
// nodes that must ask others.
func TestHistoriesOfFive(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	runHistories(t, 5, 2*historiesAtOnce, env.Number(t, "IMGCLUSTER_SEED", 1))
}

func runHistories(t *testing.T, nodes, count, seed int) {
	r := startHistories(t, nodes, uint64(seed))
	begun := time.Now()
	for r.checked < count && !t.Failed() {
		r.round(t, min(historiesAtOnce, count-r.checked))
	}
	r.report(t, seed, time.Since(begun))
	r.c.ExpectSettled(t)
	r.c.ExpectNoPlaintext(t)
}

// The size of a history. A round has several, which share one fault.
const (
	historiesAtOnce   = 10
	clientsPerHistory = 3
	callsPerClient    = 8
	namesPerHistory   = 2
	bodyBytesMax      = 8 << 10
	// patience is how long a client waits for an answer; one operation in cutOneIn ends sooner, because its
	// client disconnects.
	patience    = 1500 * time.Millisecond
	cutOneIn    = 12
	cutAfterMax = 30 * time.Millisecond
)

// histories is a run of them on one cluster.
type histories struct {
	c         *clustertest.Cluster
	cl        *client.Client // by broadcast
	announcer *client.Client
	rng       *rand.Rand

	ended   atomic.Int64 // operations
	rounds  int
	checked int
	faults  map[string]int

	mu     sync.Mutex
	values map[[sha256.Size]byte]int // of all bodies, by their hash
	counts map[string]int            // operations by what they were and how they ended
}

func startHistories(t *testing.T, nodes int, seed uint64) *histories {
	o := clustertest.Options{Nodes: nodes, Processes: true}
	o.Change = func(cfg *config.Config) {
		cfg.Limits.Uploads = 2 * historiesAtOnce * clientsPerHistory
		cfg.Timeouts.PeerSilence = 500 * time.Millisecond
		cfg.Timeouts.Takeover = 700 * time.Millisecond
		cfg.Repair.Delay = time.Second   // copies are made while the clients go on
		cfg.Timeouts.Sweep = time.Second // what a killed node left on others
	}
	c := clustertest.Start(t, o)
	c.HTTP.Transport.(*http.Transport).MaxIdleConnsPerHost = historiesAtOnce * clientsPerHistory
	return newHistories(t, c, seed)
}

func newHistories(t *testing.T, c *clustertest.Cluster, seed uint64) *histories {
	return &histories{
		c: c, cl: c.Client(t, client.Broadcast), announcer: c.Client(t, client.Announce),
		rng:    rand.New(rand.NewPCG(seed, 0)),
		faults: map[string]int{}, values: map[[sha256.Size]byte]int{}, counts: map[string]int{},
	}
}

// load is several histories at once.
type load struct {
	name     string
	all      []*history
	finished chan struct{} // closed when their clients have ended
}

func (r *histories) begin(t *testing.T, name string, n int) *load {
	l := &load{name: name, finished: make(chan struct{})}
	var clients sync.WaitGroup
	for i := range n {
		h := &history{start: time.Now()}
		l.all = append(l.all, h)
		for who := range clientsPerHistory {
			rng := rand.New(rand.NewPCG(r.rng.Uint64(), 0))
			clients.Go(func() { r.client(t, h, who, rng, l.prefix(i)) })
		}
	}
	go func() {
		clients.Wait()
		close(l.finished)
	}()
	return l
}

// prefix begins the names of a history.
func (l *load) prefix(i int) string { return fmt.Sprintf("%s-%d", l.name, i) }

func (l *load) ended() bool { return wait.Closed(l.finished) }

// expectLinearizable expects that histories that have ended are linearizable, with what all nodes have in the
// end.
func (r *histories) expectLinearizable(t *testing.T, l *load, fault string) {
	t.Helper()
	for i, h := range l.all {
		r.readAll(t, h, l.prefix(i))
		if why := contradiction(h.ops); why != "" {
			t.Errorf("round %d (%s), history %d is not linearizable:\n%s\nall of it:\n%s",
				r.rounds, fault, i, why, text(h.ops))
		}
		r.checked++
	}
}

// round runs n histories at once, with a fault meanwhile.
func (r *histories) round(t *testing.T, n int) {
	l := r.begin(t, strconv.Itoa(r.rounds), n)
	calls := int64(n * clientsPerHistory * callsPerClient)
	due := r.ended.Load() + calls/8
	// wait returns when some more operations have ended.
	wait := func() {
		due += 1 + r.rng.Int64N(calls/4)
		clustertest.Poll(t, "operations end", func() bool { return l.ended() || r.ended.Load() >= due })
	}
	wait()
	f := historyFaults[r.rounds%len(historyFaults)]
	f.do(r, wait)
	r.faults[f.name]++
	<-l.finished
	r.expectLinearizable(t, l, f.name)
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

// leader returns the node that leads most shards.
func (r *histories) leader() image.NodeID {
	nodes := r.c.Status(r.anyNode()).Nodes
	if len(nodes) == 0 {
		return r.anyNode()
	}
	return slices.MaxFunc(nodes, func(a, b wire.NodeStatus) int { return a.LeaderOf - b.LeaderOf }).ID
}

// report logs the figures, and expects that every kind of operation has happened.
func (r *histories) report(t *testing.T, seed int, took time.Duration) {
	operations := 0
	unclear := 0
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
	t.Logf("seed %d, %d nodes: %d histories, %d operations, %d of unknown outcome, %d faults, %.0f seconds\n%s",
		seed, len(r.c.IDs()), r.checked, operations, unclear, faults, took.Seconds(), strings.Join(lines, "\n"))
	for _, what := range []string{
		"put: done", "put if absent: done", "put if absent: refused", "get: done", "get: no image",
		"delete: done", "delete: refused",
	} {
		if r.counts[what] == 0 && !t.Failed() {
			t.Errorf("no operation was %q", what)
		}
	}
}
