package ingest

import (
	"fmt"
	"testing"
	"testing/synctest"

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

func TestShareIsBalanced(t *testing.T) {
	f := newFleet(t, nil)
	owners := map[image.NodeID]int{}
	for i := range 60 {
		rec := f.expectRecord(f.broadcast(request(fmt.Sprint(i)), randomBytes(1000), nil))
		owners[rec.Owner]++
	}
	for n := range f.nodes {
		if owners[n] < 18 || owners[n] > 22 {
			t.Errorf("owners %v of 60 uploads", owners)
			break
		}
	}
	f.expectNothingLeft()
}
