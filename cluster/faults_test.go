package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
	"imgcluster/cluster/placement"
	"imgcluster/cluster/wire"
)

// pauseMax is the longest pause of uploads that a fault may cause here. The design says 2 s; the host that
// runs the tests may be busy.
const pauseMax = 10 * time.Second

// The processes are killed and paused with signals. In each of these tests the first fault comes with the
// cluster's first upload, whose owner is known beforehand.

func TestKilledOwner(t *testing.T) {
	f := startFaults(t)
	t.Run("Owner", f.killOwner)
	t.Run("All", f.killAll)
	f.expectSecrets(t)
}

func TestPausedOwner(t *testing.T) {
	f := startFaults(t)
	t.Run("Owner", f.pauseOwner)
	t.Run("Leader", f.killLeader) // before any restart, after which dead connections are noticed one by one
	f.expectSecrets(t)
}

func startFaults(t *testing.T) *faults {
	t.Helper()
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Processes: true})
	return &faults{c: c, cl: c.Client(t, client.Broadcast), bodies: map[string][]byte{}}
}

type faults struct {
	c  *clustertest.Cluster
	cl *client.Client

	mu     sync.Mutex
	bodies map[string][]byte // of all acknowledged images
}

// put broadcasts an image, and adds it to the acknowledged ones when it is.
func (f *faults) put(ctx context.Context, up client.Upload, body []byte) (client.Result, error) {
	res, err := f.cl.Put(ctx, up)
	if err == nil {
		f.mu.Lock()
		f.bodies[up.Name] = body
		f.mu.Unlock()
	}
	return res, err
}

// expectAll expects to read every acknowledged image through every node (invariant I1), and that files,
// records and nodes agree (I5, I6).
func (f *faults) expectAll(t *testing.T) {
	t.Helper()
	f.c.WaitReady(f.c.IDs()...)
	for name, body := range f.bodies {
		f.c.ExpectImage(t, "alice", name, body, f.c.IDs()...)
	}
	f.c.ExpectSettled(t)
	if l := f.c.List(t, 1, "alice"); len(l) != len(f.bodies) {
		t.Errorf("%d images are listed, %d were acknowledged", len(l), len(f.bodies))
	}
}

func (f *faults) expectSecrets(t *testing.T) {
	t.Helper()
	f.c.ExpectNoPlaintext(t)
	f.c.ExpectUniqueKeys(t)
}

// gated is a body that stops in the middle until the gate is opened.
type gated struct {
	*bytes.Reader
	gate <-chan struct{}
	half int64
}

func newGated(body []byte, gate <-chan struct{}) io.Reader {
	return struct{ io.Reader }{&gated{bytes.NewReader(body), gate, int64(len(body) / 2)}}
}

func (g *gated) Read(p []byte) (int, error) {
	at := g.Size() - int64(g.Len())
	if at < g.half {
		return g.Reader.Read(p[:min(int64(len(p)), g.half-at)])
	}
	<-g.gate
	return g.Reader.Read(p)
}

// sendHalf begins an upload and returns when its storing nodes have begun to write it. finish sends the rest
// and returns the result.
func (f *faults) sendHalf(
	t *testing.T, name string, body []byte, change ...func(*client.Upload),
) (finish func() client.Result) {
	t.Helper()
	return f.sendUntil(t, name, body, "two nodes write the image", func() bool {
		writing := 0
		for _, id := range f.c.IDs() {
			writing += len(f.c.Files(t, id, ".tmp"))
		}
		return writing == 2
	}, change...)
}

// sendUntil is sendHalf that returns when something else is the case.
func (f *faults) sendUntil(
	t *testing.T, name string, body []byte, what string, is func() bool, change ...func(*client.Upload),
) (finish func() client.Result) {
	t.Helper()
	gate := make(chan struct{})
	type result struct {
		res client.Result
		err error
	}
	done := make(chan result, 1)
	up := uploadOf(name, body)
	up.Body = func() io.Reader { return newGated(body, gate) }
	for _, c := range change {
		c(&up)
	}
	go func() {
		res, err := f.put(context.WithoutCancel(t.Context()), up, body)
		done <- result{res, err}
	}()
	clustertest.Poll(t, what, is)
	return func() client.Result {
		t.Helper()
		close(gate)
		r := <-done
		if r.err != nil {
			t.Fatal(r.err)
		}
		<-r.res.Done
		return r.res
	}
}

// firstOwner returns the owner of a cluster's first upload, which depends on its name alone.
func (f *faults) firstOwner(t *testing.T, name string, body []byte) image.NodeID {
	t.Helper()
	var nodes []placement.Candidate
	for _, id := range f.c.IDs() {
		nodes = append(nodes, placement.Candidate{ID: id})
	}
	order, err := placement.Place("alice", name, int64(len(body)), nodes, 2)
	if err != nil {
		t.Fatal(err)
	}
	return order[0]
}

// expectTakenOver expects that an upload whose owner failed in the middle was stored by the two other nodes,
// without being sent again.
func expectTakenOver(t *testing.T, res client.Result, owner image.NodeID) {
	t.Helper()
	if res.Attempts != 1 {
		t.Errorf("the client sent the image %d times", res.Attempts)
	}
	if rec := res.Receipt; rec.Owner == owner || slices.Contains(rec.Replicas, owner) || len(rec.Replicas) != 2 {
		t.Errorf("node %d has failed, receipt %+v", owner, rec)
	}
}

// expectUploadsResume expects that an image is acknowledged within pauseMax of a fault at `since`.
func (f *faults) expectUploadsResume(t *testing.T, name string, since time.Time) {
	t.Helper()
	body := clustertest.Image(uint64(len(f.bodies)), 50_000)
	ctx, cancel := context.WithTimeout(t.Context(), clustertest.Deadline)
	defer cancel()
	if _, err := f.put(ctx, uploadOf(name, body), body); err != nil {
		t.Fatal(err)
	}
	pause := time.Since(since)
	t.Logf("an upload was acknowledged %v after the fault", pause.Round(time.Millisecond))
	if pause > pauseMax {
		t.Errorf("uploads resumed only after %v", pause)
	}
}

func (f *faults) killOwner(t *testing.T) {
	body := clustertest.Image(500, 2*segment)
	owner := f.firstOwner(t, "owner-dies.png", body)
	finish := f.sendHalf(t, "owner-dies.png", body)
	f.c.Kill(owner)
	since := time.Now()
	for i := range 3 { // of several shards
		f.expectUploadsResume(t, fmt.Sprintf("owner-died-%d.png", i), since)
	}
	expectTakenOver(t, finish(), owner)
	for name, body := range f.bodies {
		f.c.ExpectImage(t, "alice", name, body, f.c.Others(owner)...)
	}
	f.c.Start(owner)
	f.expectAll(t) // the file that it had begun is swept
}

// killLeader kills the node that leads most shards, under load.
func (f *faults) killLeader(t *testing.T) {
	var status wire.ClusterStatus
	clustertest.Poll(t, "leaders", func() bool {
		status = f.c.Status(1)
		return status.Ready
	})
	most := slices.MaxFunc(status.Nodes, func(a, b wire.NodeStatus) int { return a.LeaderOf - b.LeaderOf })
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				body := clustertest.Image(uint64(600+100*w+i), 20_000)
				name := fmt.Sprintf("leader-%d-%d.png", w, i)
				if _, err := f.put(t.Context(), uploadOf(name, body), body); err != nil {
					t.Errorf("upload %d-%d: %v", w, i, err)
				}
			}
		})
	}
	f.c.Kill(most.ID)
	since := time.Now()
	for i := range 3 {
		f.expectUploadsResume(t, fmt.Sprintf("leader-died-%d.png", i), since)
	}
	stop()
	wg.Wait()
	f.c.Start(most.ID)
	f.expectAll(t)
}

// killAll kills every node at once. The client sends its image again, under the same upload ID, and
// nothing that was acknowledged is lost.
func (f *faults) killAll(t *testing.T) {
	finish := f.sendHalf(t, "all-die.png", clustertest.Image(502, segment))
	for _, id := range f.c.IDs() {
		f.c.Kill(id)
	}
	f.c.Start(f.c.IDs()...)
	finish()
	f.expectAll(t)
}

// pauseOwner pauses the owner until another node has taken its part over. When the owner continues, as if the
// upload were still its own, the log rejects what it stores, and its file is removed.
func (f *faults) pauseOwner(t *testing.T) {
	body := clustertest.Image(501, segment)
	owner := f.firstOwner(t, "owner-sleeps.png", body)
	finish := f.sendHalf(t, "owner-sleeps.png", body)
	f.c.Pause(owner)
	since := time.Now()
	res := finish()
	t.Logf("taken over %v after the owner was paused", time.Since(since).Round(time.Millisecond))
	expectTakenOver(t, res, owner)
	f.expectUploadsResume(t, "while-owner-sleeps.png", since)
	f.c.Resume(owner)
	f.expectAll(t)
	head := f.c.Do(http.MethodHead, owner, clustertest.Path("alice", "owner-sleeps.png"), nil, nil)
	id, err := image.ParseID(head.Header.Get("Imgcluster-Upload"))
	if err != nil {
		t.Fatal(err)
	}
	if left := f.c.FilesOf(t, owner, id); len(left) != 0 {
		t.Errorf("the late owner keeps %v", left)
	}
}

// TestRestartsSendNothingTwice restarts a node several times under uploads: none is sent a second time, and
// none waits for a node that was given a part in it and refused it.
func TestRestartsSendNothingTwice(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Processes: true})
	f := &faults{c: c, cl: c.Client(t, client.Broadcast), bodies: map[string][]byte{}}
	ctx, stop := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				body := clustertest.Image(uint64(w), 100_000)
				name := fmt.Sprintf("%d-%d.png", w, i)
				res, err := f.put(t.Context(), uploadOf(name, body), body)
				if err != nil || res.Attempts != 1 {
					t.Errorf("sent %d times, %v", res.Attempts, err)
				}
			}
		})
	}
	for range 4 {
		c.Stop(3)
		c.Start(3)
		c.WaitReady(3)
	}
	stop()
	workers.Wait()
	f.expectAll(t)
}
