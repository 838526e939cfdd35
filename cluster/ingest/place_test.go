package ingest

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/clustertest/memkv"
	"imgcluster/cluster/commit"
	"imgcluster/cluster/image"
)

// TestLeaderIsSentNothing: the shard's leader is not among the nodes that an upload is sent to.
func TestLeaderIsSentNothing(t *testing.T) { synctest.Test(t, leaderIsSentNothing) }

func leaderIsSentNothing(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1 << 20)
	for i := range 4 {
		rec := f.expectRecord(f.broadcastTo(request(fmt.Sprint(i)), body, 2, 3))
		expectCopiesWithout(t, 1, rec)
		f.expectStored(rec, body)
	}
	f.expectEntries("commit", "commit", "commit", "commit")
	f.expectNothingLeft()
}

// TestFullNodesAreLeftOut: nodes that report that they are full get nothing, whichever node is asked, and an
// upload is refused only when too few others are left.
func TestFullNodesAreLeftOut(t *testing.T) { synctest.Test(t, fullNodesAreLeftOut) }

func fullNodesAreLeftOut(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1 << 20)
	f.fill(2)
	for i := range 6 {
		expectCopiesWithout(t, 2, f.expectRecord(f.broadcast(request(fmt.Sprint(i)), body, nil)))
	}
	rec, err := f.relay(2, request("relayed"), body)
	if err != nil {
		t.Fatal(err)
	}
	expectCopiesWithout(t, 2, rec)
	if n := f.vaults[2].count(); n != 0 {
		t.Errorf("the full node has %d files", n)
	}
	f.fill(2, 3)
	f.expectKind(f.broadcast(request("too many"), body, nil), image.KindDiskFull)
	f.expectNothing("too many")
	f.fill()
	f.kill(2)
	f.kill(3)
	if rec, err := f.relay(1, request("alone"), body[:10]); err != nil || len(rec.Copies) != 1 {
		t.Fatalf("%+v, %v", rec, err)
	}
}

func TestOneNodeLeftCommitsWithOneCopy(t *testing.T) {
	f := newFleet(t, nil)
	f.live = []image.NodeID{1}
	rec, err := f.relay(1, request("a.png"), randomBytes(1000))
	if err != nil || len(rec.Copies) != 1 || rec.Wanted != 2 {
		t.Fatalf("%+v, %v", rec, err)
	}
}

// TestCopiesAreNotSavedAtStart lets only one of three live nodes have the newest state yet: an upload
// waits for another one instead of being kept once.
func TestCopiesAreNotSavedAtStart(t *testing.T) {
	f := newFleet(t, func(o *Options) {
		o.UpToDate = func(uint64) []image.NodeID { return []image.NodeID{1} }
	})
	_, err := f.relay(1, request("a"), []byte{1})
	if image.KindOf(err) != image.KindNoQuorum {
		t.Errorf("with one current node of three: %v", err)
	}
	f.expectEntries()
}

// TestSharesAreEven: of uploads one after the other, no node owns two more than another.
func TestSharesAreEven(t *testing.T) { synctest.Test(t, sharesAreEven) }

func sharesAreEven(t *testing.T) {
	f := newFleet(t, nil)
	for _, send := range []func(image.Request) *image.Record{
		func(req image.Request) *image.Record { return f.expectRecord(f.broadcast(req, randomBytes(1000), nil)) },
		func(req image.Request) *image.Record {
			rec, err := f.relay(2, req, randomBytes(1000))
			if err != nil {
				t.Fatal(err)
			}
			return rec
		},
	} {
		owners := map[image.NodeID]int{}
		for i := range 30 {
			owners[send(request(fmt.Sprint(i))).Owner]++
		}
		for n := range f.nodes {
			if owners[n] != 10 {
				t.Errorf("owners %v of 30 uploads", owners)
				break
			}
		}
		f.expectNothingLeft()
	}
}

// TestDecisionsCountAtOnce: what the leader of a shard decides is load for all its nodes before the log shows
// it, on those that have no part in the upload too.
func TestDecisionsCountAtOnce(t *testing.T) { synctest.Test(t, decisionsCountAtOnce) }

func decisionsCountAtOnce(t *testing.T) {
	f := newFleet(t, nil)
	body := randomBytes(1000)
	expectCounted := func(want int) {
		t.Helper()
		for n := range f.nodes {
			if got := f.counted(n); got != want {
				t.Errorf("node %d counts %d decisions, want %d", n, got, want)
			}
		}
	}
	release := f.log.holdBack("commit")
	req := f.named(body, 1, 2)
	done := make(chan error, 1)
	go func() {
		_, err := f.nodes[2].Receive(t.Context(), req, bytes.NewReader(body))
		done <- err
	}()
	synctest.Wait()
	expectCounted(1)
	release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	expectCounted(0)
	f.expectNothingLeft()
}

// TestLateDecisionIsNoLoad: a decision that comes after its upload has ended does not count, nor does one of
// a node that does not lead, nor an upload that was given up.
func TestLateDecisionIsNoLoad(t *testing.T) { synctest.Test(t, lateDecisionIsNoLoad) }

func lateDecisionIsNoLoad(t *testing.T) {
	f := newFleet(t, nil)
	rec, err := f.relay(1, f.named(randomBytes(1000), 1, 2), randomBytes(1000))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	d := commit.Decision{ID: rec.ID, Round: 1, Bytes: 1000, Storing: []image.NodeID{1, 2}, Standby: 3}
	f.nodes[3].Take(1, Message{Shard: testShard, Decision: &d})
	if n := f.counted(3); n != 0 {
		t.Errorf("%d decisions count", n)
	}
	d.ID = image.NewID()
	f.nodes[3].Take(2, Message{Shard: testShard, Decision: &d}) // of a node that does not lead
	if n := f.counted(3); n != 0 {
		t.Errorf("%d decisions of another node than the leader count", n)
	}
	for _, c := range []struct {
		storing []image.NodeID
		want    int
	}{{d.Storing, 1}, {nil, 0}} {
		d.Storing = c.storing
		f.nodes[3].Take(1, Message{Shard: testShard, Decision: &d})
		if n := f.counted(3); n != c.want {
			t.Errorf("%d decisions count, want %d", n, c.want)
		}
	}
}

// TestLoadsOfTheSameNodes: nodes are compared by the shards that all of them hold, and no other.
func TestLoadsOfTheSameNodes(t *testing.T) {
	nodes := map[uint64][]image.NodeID{2: {1, 2, 3}, 3: {3, 1, 2}, 4: {1, 2, 4}}
	p := newPlacer(&Options{
		Log:        nodeLog{&fakeLog{db: memkv.KV{}}, 1},
		Shards:     func() []uint64 { return []uint64{2, 3, 4} },
		ShardNodes: func(shard uint64) []image.NodeID { return nodes[shard] },
	}, func(uint64) uint64 { return 0 })
	for shard := range nodes {
		p.heard(shard, commit.Decision{ID: image.NewID(), Bytes: 10, Storing: []image.NodeID{1, 2}})
	}
	loads, err := p.loads(2)
	if err != nil {
		t.Fatal(err)
	}
	if got := loads[1].Assigned; got != (catalog.Load{Images: 2, Bytes: 20}) {
		t.Errorf("node 1 has %+v of shards 2 and 3", got)
	}
	if loads, err = p.loads(4); err != nil || loads[1].Assigned.Images != 1 {
		t.Errorf("node 1 has %+v of shard 4 (%v)", loads[1], err)
	}
}
