package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/clustertest/env"
	"imgcluster/cluster/failpoint"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/config"
)

// TestCrash kills nodes at the steps of uploads, deletes, repairs and changes of the members, while clients
// go on, and expects all invariants after each: 15 crashes, or IMGCLUSTER_CRASHES of them. IMGCLUSTER_SEED
// selects another order, other nodes and other moments; IMGCLUSTER_FAILPOINT_ONLY is a prefix of the
// failpoints to use.
func TestCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program and starts processes")
	}
	t.Parallel()
	count := env.Number(t, "IMGCLUSTER_CRASHES", 15)
	seed := env.Number(t, "IMGCLUSTER_SEED", 1)
	r := startCrashes(t, uint64(seed))
	begun := time.Now()
	for rounds := 0; r.crashes() < count && !t.Failed(); rounds++ {
		if rounds > 2*count+len(failpoint.Names()) {
			t.Errorf("%d crashes in %d rounds: the nodes do not reach their failpoints", r.crashes(), rounds)
			break
		}
		r.crash(t)
	}
	r.reportCrashes(t, seed, time.Since(begun))
}

// The size of a round: histories at once, and how often they are begun until a node has reached its
// failpoint.
const (
	crashHistories = 3
	crashLoads     = 3
	// keptMost is how many of the images that were stored right after a crash are read back after all
	// later ones, beside those from the beginning.
	keptMost  = 12
	keptFirst = 12
)

// crashes is a run on one cluster.
type crashes struct {
	*histories
	seen    *clustertest.Invariants
	deck    []string // failpoints to come
	kept    []stored
	stored  int
	place   string       // the failpoint at which a node is to die now
	removed image.NodeID // may end by itself
	pauses  []time.Duration
	byPlace map[string]int // crashes by failpoint
	missed  map[string]int // rounds in which the node did not reach it
	only    string         // prefix of the failpoints to use
}

func startCrashes(t *testing.T, seed uint64) *crashes {
	o := clustertest.Options{Processes: true, Program: clustertest.BuildWithFailpoints(t)}
	o.Change = func(cfg *config.Config) {
		cfg.Limits.Uploads = 2 * crashHistories * clientsPerHistory
		cfg.Timeouts.PeerSilence = 500 * time.Millisecond
		cfg.Timeouts.Takeover = 700 * time.Millisecond
		cfg.Timeouts.Sweep = time.Second
		cfg.Repair.Delay = time.Second
		cfg.Raft.SnapshotEntries = 20
		cfg.Raft.CompactionOverhead = 5
		cfg.Local.LostData = config.LostDataReplace
	}
	c := clustertest.Start(t, o)
	c.HTTP.Transport.(*http.Transport).MaxIdleConnsPerHost = crashHistories * clientsPerHistory
	r := &crashes{
		histories: newHistories(t, c, seed),
		seen:      clustertest.NewInvariants(),
		byPlace:   map[string]int{},
		missed:    map[string]int{},
		only:      os.Getenv("IMGCLUSTER_FAILPOINT_ONLY"),
	}
	r.kept = putImages(t, c, "first", keptFirst)
	return r
}

func (r *crashes) crashes() (n int) {
	for _, k := range r.byPlace {
		n += k
	}
	return n
}

// next draws a failpoint; each comes once before any comes again.
func (r *crashes) next(t *testing.T) string {
	if len(r.deck) == 0 {
		r.deck = slices.DeleteFunc(failpoint.Names(), func(name string) bool {
			// Those of keys come once in a change of the master key: TestLeaderDiesWhileSealingAgain.
			return !strings.HasPrefix(name, r.only) || strings.HasPrefix(name, "keys/")
		})
		r.rng.Shuffle(len(r.deck), func(i, j int) { r.deck[i], r.deck[j] = r.deck[j], r.deck[i] })
	}
	if len(r.deck) == 0 {
		t.Fatalf("no failpoint begins with %q", r.only)
	}
	name := r.deck[0]
	r.deck = r.deck[1:]
	return name
}

// arm is what a round is to do: a node dies when it reaches a failpoint for the n-th time.
type arm struct {
	place string
	node  image.NodeID
	n     int
}

// crash is one round.
func (r *crashes) crash(t *testing.T) {
	a := arm{place: r.next(t), node: r.anyNode()}
	r.place = a.place
	s := scenarioOf(a.place)
	a.n = 1 + r.rng.IntN(s.most)
	defer func() {
		if t.Failed() {
			t.Logf("in round %d: node %d at its pass %d of %s", r.rounds, a.node, a.n, a.place)
			r.c.DumpStacks()
		}
	}()
	before := r.crashes()
	begun := time.Now()
	s.run(r, t, a)
	if r.crashes() == before {
		r.missed[a.place]++
	}
	r.expectInvariants(t)
	if testing.Verbose() {
		t.Logf("round %d: node %d, pass %d of %s, %d crashes, %v", r.rounds, a.node, a.n, a.place,
			r.crashes()-before, time.Since(begun).Round(time.Millisecond))
	}
	r.rounds++
}

// scenario makes the nodes reach a failpoint, each at least `most` times.
type scenario struct {
	most int
	run  func(*crashes, *testing.T, arm)
}

func scenarioOf(place string) scenario {
	is := func(names ...string) bool { return slices.Contains(names, place) }
	switch {
	case is("upload/before-commit", "upload/committed"):
		return scenario{2, (*crashes).underPause}
	case is("catalog/snapshot-begun", "catalog/snapshot-saved"):
		return scenario{1, (*crashes).sendingSnapshot}
	case is("catalog/before-replace", "catalog/replaced"):
		return scenario{2, (*crashes).receivingSnapshot}
	case is("member/before-renew", "member/quarantined", "member/renewed", "member/identity-written",
		"member/before-admit", "member/admitted", "member/before-first-replica"):
		return scenario{1, (*crashes).replacingLostData}
	case strings.HasPrefix(place, "member/"):
		return scenario{2, (*crashes).inReplacement}
	case is("repair/before-remove"): // only when an image is deleted while it is copied
		return scenario{1, (*crashes).inDrain}
	case strings.HasPrefix(place, "repair/"):
		return scenario{3, (*crashes).inDrain}
	}
	return scenario{8, (*crashes).underLoad}
}

func (r *crashes) begin(t *testing.T) *load {
	r.stored++
	return r.histories.begin(t, fmt.Sprintf("load-%d", r.stored), crashHistories)
}

// wait returns when the clients have ended.
func (r *crashes) wait(t *testing.T, l *load) {
	t.Helper()
	r.until(t, "the clients end", l.ended)
}

// end waits for the clients and for all nodes, expects that what they saw was linearizable, and deletes what
// they stored.
func (r *crashes) end(t *testing.T, loads ...*load) {
	t.Helper()
	for _, l := range loads {
		r.wait(t, l)
	}
	r.disarm()
	r.awaitReady(t)
	for _, l := range loads {
		r.expectLinearizable(t, l, r.place) // I7
		for i := range l.all {
			for n := range namesPerHistory {
				path := clustertest.Path("alice", historyName(l.prefix(i), n))
				r.c.DoAgain(t, http.MethodDelete, r.anyNode(), path, nil, nil)
			}
		}
	}
}

// until waits like clustertest.Poll, and restarts the nodes that die meanwhile.
func (r *crashes) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	clustertest.Poll(t, what, func() bool {
		r.restartDead(t)
		return ok()
	})
}

// restartDead restarts the nodes that died, after an image was stored without them.
func (r *crashes) restartDead(t *testing.T) {
	t.Helper()
	for _, id := range r.c.IDs() {
		died, err := r.c.Died(id)
		switch {
		case !died:
		case err == nil:
			r.byPlace[r.place]++
			since := time.Now()
			if !slices.Contains(quorumLost, r.place) {
				r.expectAcknowledged(t, since)
				r.c.Start(id)
				continue
			}
			r.c.Start(id)
			r.expectAcknowledged(t, since)
		case id != r.removed:
			t.Error(err)
			r.c.Start(id)
		}
	}
}

// quorumLost are the steps after which a group may have no quorum until its leader is up again. The leader
// has just removed one of four replicas, and the two that are left may not know that this is committed. For
// them three of four are the majority, as dragonboat has it, and the removed one does not vote any more.
var quorumLost = []string{"member/replica-removed", "member/before-settle"}

// expectAcknowledged stores an image after a fault (invariant I8).
func (r *crashes) expectAcknowledged(t *testing.T, since time.Time) {
	t.Helper()
	r.stored++
	s := stored{
		name: fmt.Sprintf("after-crash-%d.png", r.stored),
		body: clustertest.Image(uint64(1e6+r.stored), 20_000),
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*pauseMax)
	defer cancel()
	if _, err := r.cl.Put(ctx, uploadOf(s.name, s.body)); err != nil {
		t.Errorf("after a crash: %v", err)
		for _, id := range r.c.IDs() {
			resp := r.c.Do(http.MethodPut, id, clustertest.Path("alice", s.name), bytes.NewReader(s.body), nil)
			t.Logf("node %d: %d %v %s; its status %+v", id, resp.Status, resp.Err, resp.Body, r.c.Status(id))
		}
		return
	}
	pause := time.Since(since)
	r.pauses = append(r.pauses, pause)
	if pause > pauseMax {
		t.Errorf("uploads resumed only %v after a crash", pause)
	}
	r.kept = append(r.kept, s)
	if len(r.kept) > keptFirst+keptMost {
		oldest := r.kept[keptFirst]
		r.kept = slices.Delete(r.kept, keptFirst, keptFirst+1)
		r.c.DoAgain(t, http.MethodDelete, r.anyNode(), clustertest.Path("alice", oldest.name), nil, nil)
	}
}

// awaitReady waits until all nodes run and serve.
func (r *crashes) awaitReady(t *testing.T) {
	t.Helper()
	for _, id := range r.c.IDs() {
		if !r.c.Runs(id) {
			r.c.Start(id)
		}
	}
	r.until(t, "all nodes serve", func() bool { return r.c.Ready(r.c.IDs()...) })
}

// expectInvariants checks what must hold after every fault. That histories are linearizable (I7) is
// expected where they end, and that faults give typed errors (I9) where requests are made.
func (r *crashes) expectInvariants(t *testing.T) {
	t.Helper()
	r.awaitReady(t)
	expectImages(t, r.c, r.kept, r.anyNode()) // I1
	r.c.ExpectSettled(t)                      // I5
	r.c.ExpectEqualCatalogs(t)                // I6
	r.c.ExpectNoPlaintext(t)                  // I3
	r.seen.ExpectUniqueKeys(t, r.c)           // I4
	for _, id := range r.c.IDs() {
		entries, ok := r.c.Inventory(id)
		if !ok {
			t.Errorf("node %d does not list its catalog", id)
		}
		r.seen.ExpectRecords(t, entries) // I2
	}
}

// disarm disarms the failpoint of every running node.
func (r *crashes) disarm() {
	for _, id := range r.c.IDs() {
		r.c.Arm(id, "", 1)
	}
}

// arm arms a failpoint of a node.
func (r *crashes) arm(t *testing.T, a arm) {
	t.Helper()
	if !r.c.Arm(a.node, a.place, a.n) {
		t.Errorf("node %d does not arm %s", a.node, a.place)
	}
}

func (r *crashes) underLoad(t *testing.T, a arm) {
	before := r.crashes()
	for i := 0; i < crashLoads && r.crashes() == before; i++ {
		r.arm(t, a)
		r.end(t, r.begin(t))
	}
}

// underPause pauses another node, so that its parts of uploads are given to others.
func (r *crashes) underPause(t *testing.T, a arm) {
	before := r.crashes()
	others := r.c.Others(a.node)
	for i := 0; i < crashLoads && r.crashes() == before; i++ {
		r.arm(t, a)
		id := others[i%len(others)]
		l := r.begin(t)
		r.c.Pause(id)
		timer := time.NewTimer(2 * r.c.Config.Timeouts.PeerSilence)
		clustertest.Poll(t, "a node dies, or another one was silent for long", func() bool {
			select {
			case <-timer.C:
				return true
			default:
				return r.c.Dead(a.node)
			}
		})
		r.c.Resume(id)
		r.end(t, l)
	}
}

// fallBehind kills a node and lets it fall so far behind that it needs a snapshot.
func (r *crashes) fallBehind(t *testing.T, id image.NodeID) (loads []*load) {
	r.c.Kill(id)
	for range 2 {
		l := r.begin(t)
		r.wait(t, l)
		loads = append(loads, l)
	}
	return loads
}

// receivingSnapshot has a node die while it receives a snapshot.
func (r *crashes) receivingSnapshot(t *testing.T, a arm) {
	loads := r.fallBehind(t, a.node)
	r.c.StartArmed(a.node, a.place, a.n)
	r.awaitReady(t)
	r.end(t, loads...)
}

// sendingSnapshot has a node die while it sends one.
func (r *crashes) sendingSnapshot(t *testing.T, a arm) {
	r.arm(t, a)
	others := r.c.Others(a.node)
	loads := r.fallBehind(t, others[r.rng.IntN(len(others))])
	r.awaitReady(t) // starts it
	r.end(t, loads...)
}

// replacingLostData removes all that a node has, or a part, and has the node die while it replaces that.
func (r *crashes) replacingLostData(t *testing.T, a arm) {
	l := r.begin(t)
	r.c.Kill(a.node)
	dir := r.c.Config.DataDir(a.node)
	lost := []string{dir, filepath.Join(dir, "raft"), filepath.Join(dir, "catalog")}[r.rng.IntN(3)]
	if err := os.RemoveAll(lost); err != nil {
		t.Fatal(err)
	}
	r.c.StartArmed(a.node, a.place, a.n)
	r.awaitReady(t)
	r.end(t, l)
}

// membersTimeout is how long a request about the members may take, before the test looks again for nodes that
// died.
const membersTimeout = 2 * time.Second

func (r *crashes) members(t *testing.T) ([]wire.Member, error) {
	ctx, cancel := context.WithTimeout(t.Context(), membersTimeout)
	defer cancel()
	return r.cl.Members(ctx)
}

// change changes the members, and asks again until they are as wanted.
func (r *crashes) change(t *testing.T, c wire.MemberChange, wanted func([]wire.Member) bool) {
	t.Helper()
	r.until(t, fmt.Sprintf("members after %s %d", c.Op, c.ID), func() bool {
		list, err := r.members(t)
		if err == nil && wanted(list) {
			return true
		}
		ctx, cancel := context.WithTimeout(t.Context(), membersTimeout)
		defer cancel()
		if _, err = r.cl.ChangeMember(ctx, c); image.KindOf(err) == image.KindInvalid {
			t.Fatalf("%s %d: %v", c.Op, c.ID, err)
		}
		return false
	})
}

// has returns whether a list of members has a node for which ok holds.
func has(id image.NodeID, ok func(wire.Member) bool) func([]wire.Member) bool {
	return func(list []wire.Member) bool {
		return slices.ContainsFunc(list, func(m wire.Member) bool { return m.ID == id && ok(m) })
	}
}

func not(ok func([]wire.Member) bool) func([]wire.Member) bool {
	return func(list []wire.Member) bool { return !ok(list) }
}

func isMember(wire.Member) bool { return true }

func isDraining(m wire.Member) bool { return m.State == "draining" }

func isActive(m wire.Member) bool { return m.State == "active" }

// inDrain has a node die while copies are moved from one node to others.
func (r *crashes) inDrain(t *testing.T, a arm) {
	r.arm(t, a)
	l := r.begin(t)
	id := r.anyNode()
	r.change(t, wire.MemberChange{Op: wire.MemberDrain, ID: id}, has(id, isDraining))
	empty := has(id, func(m wire.Member) bool { return m.Images == 0 })
	r.until(t, fmt.Sprintf("node %d is empty", id), func() bool {
		list, err := r.members(t)
		return err == nil && empty(list)
	})
	r.change(t, wire.MemberChange{Op: wire.MemberResume, ID: id}, has(id, isActive))
	r.end(t, l)
}

// inReplacement replaces a node by a new one and has one of them die.
func (r *crashes) inReplacement(t *testing.T, a arm) {
	old := r.anyNode()
	fresh := r.c.Grow()
	if r.rng.IntN(3) == 0 {
		a.node = fresh.ID
	} else {
		r.arm(t, a)
	}
	l := r.begin(t)
	r.change(t, addition(fresh), has(fresh.ID, isMember))
	if a.node == fresh.ID {
		r.c.StartArmed(a.node, a.place, a.n)
	} else {
		r.c.Start(fresh.ID)
	}
	still := func(list []wire.Member) bool {
		return !slices.ContainsFunc(list, func(m wire.Member) bool { return m.Moving > 0 || !m.Up })
	}
	members := func(n int) func() bool {
		return func() bool {
			list, err := r.members(t)
			return err == nil && len(list) == n && still(list)
		}
	}
	r.until(t, "4 members, and nothing moves", members(4))
	r.change(t, wire.MemberChange{Op: wire.MemberDrain, ID: old}, has(old, isDraining))
	empty := has(old, func(m wire.Member) bool { return m.Images == 0 && m.Shards == 0 })
	r.until(t, fmt.Sprintf("node %d is empty", old), func() bool {
		list, err := r.members(t)
		return err == nil && empty(list)
	})
	r.removed = old
	r.change(t, wire.MemberChange{Op: wire.MemberRemove, ID: old}, not(has(old, isMember)))
	r.until(t, fmt.Sprintf("node %d ends", old), func() bool { return !r.c.Runs(old) })
	r.wait(t, l)
	dir := r.c.Config.DataDir(old)
	r.c.Shrink(old)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	r.removed = 0
	r.until(t, "3 members, and nothing moves", members(3))
	r.cl, r.announcer = r.c.Client(t, client.Broadcast), r.c.Client(t, client.Announce)
	r.end(t, l)
}

// reportCrashes prints the figures, and fails a long run in which no node reached a failpoint.
func (r *crashes) reportCrashes(t *testing.T, seed int, took time.Duration) {
	var lines []string
	for _, place := range failpoint.Names() {
		if !strings.HasPrefix(place, r.only) || strings.HasPrefix(place, "keys/") {
			continue
		}
		if r.byPlace[place] == 0 && r.missed[place] >= missedMax {
			t.Errorf("in %d rounds no node reached %s", r.missed[place], place)
		}
		lines = append(lines,
			fmt.Sprintf("%6d crashes at %s, %d rounds without", r.byPlace[place], place, r.missed[place]))
	}
	slices.Sort(r.pauses)
	t.Logf("seed %d: %d crashes in %d rounds, %d histories with %d operations, %.0f seconds\n%s",
		seed, r.crashes(), r.rounds, r.checked, r.ended.Load(), took.Seconds(), strings.Join(lines, "\n"))
	t.Logf("after a crash an upload was acknowledged within %v (median), %v (longest)",
		r.pauses[len(r.pauses)/2].Round(time.Millisecond),
		r.pauses[len(r.pauses)-1].Round(time.Millisecond))
}

// missedMax is in how many rounds no node may reach a failpoint before its scenario counts as wrong.
const missedMax = 5
